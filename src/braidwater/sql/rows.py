"""The rows that a model is trained on, made from what a caller says of them: a table, expressions, grouping columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from sqlglot import exp

from braidwater.encoding.wide import is_list
from braidwater.errors import EmptyTableError, OptionError
from braidwater.sql.names import Name, match_columns
from braidwater.sql.place import Place, arrow_type
from braidwater.tables import Table

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Features:
    """The independent variables: one value expression for each number, or one that is an array.

    `constant` is the place and the value of a number that is written out, such as the 1 of ``ARRAY[1, tax]``: the intercept.
    """

    values: tuple[exp.Expression, ...]
    array: bool
    constant: tuple[int, float] | None

    @staticmethod
    def of(expression: exp.Expression, *, constant: bool = True) -> Features:
        """An ARRAY constructor taken apart; anything else is one expression. `constant`: whether an intercept is looked for."""
        while isinstance(expression, exp.Cast) and expression.to.is_type(exp.DType.ARRAY):
            expression = expression.this
        if not isinstance(expression, exp.Array):
            return Features((expression,), True, None)
        if not expression.expressions:
            raise OptionError("independent_varname", "ARRAY[]", "an array of at least one expression")
        if any(isinstance(value, exp.Array) for value in expression.expressions):
            raise OptionError("independent_varname", expression.sql("postgres"), "an array of numbers, not of arrays")
        values = list(expression.expressions)
        # the intercept alone is a variable like any other
        numbers = [_number(value) if constant and len(values) > 1 else None for value in values]
        place = next((place for place, number in enumerate(numbers) if number), None)
        if place is None:
            return Features(tuple(values), False, None)
        return Features((*values[:place], *values[place + 1 :]), False, (place, float(numbers[place] or 0)))


@dataclass(frozen=True)
class Counts:
    """How many rows a group has, and how many of them are used."""

    total: int
    used: int


@dataclass(frozen=True)
class TrainingRows:
    """A table of the rows without NULLs, the names of its columns, and the counts of every group (one, if there is no grouping).

    `groups` are the grouping columns; the key of a group is the tuple of their values. In the table those of other types than
    integers, truth values and text are text: `shown` has the group's key as it is there. `query` is what the table reads.
    """

    table: Table
    query: exp.Select
    features: tuple[str, ...]
    label: str | None
    groups: tuple[str, ...]
    counts: dict[Key, Counts]
    shown: dict[Key, Key]

    @property
    def used(self) -> int:
        return sum(one.used for one in self.counts.values())

    @property
    def skipped(self) -> int:
        return sum(one.total for one in self.counts.values()) - self.used


def training_rows(
    place: Place,
    source: Name,
    features: Features,
    *,
    label: exp.Expression | None = None,
    groups: Sequence[str] = (),
    label_type: str = "float8",
    where: exp.Expression | None = None,
    finite: bool = False,
) -> TrainingRows:
    """The rows of `source` (those that fulfil `where`) that have a value in every expression, with a column for each of them;
    one query that counts. `finite` leaves rows with NaN or infinities out too."""
    schema = place.schema(source)
    groups = match_columns("grouping_cols", groups, schema.names, source.text)
    expressions = [*([] if label is None else [label]), *features.values]
    known = [_known(place, one, schema, source) for one in expressions]
    kinds = ([] if label is None else [label_type]) + ["float8[]" if features.array else "float8"] * len(
        features.values
    )
    names = _distinct_names(
        [*([] if label is None else ["y"]), *map(_caption, known[label is not None :])], taken=groups
    )
    values = [exp.cast(exp.paren(one), place.sql_type(kind)) for one, kind in zip(known, kinds, strict=True)]
    keys = [_key(place, schema.field(group)) for group in groups]
    gaps, rows = _gaps(place, source, known, values, finite=finite)
    complete = exp.not_(exp.or_(*gaps)) if gaps else exp.true()
    if rows is None or gaps or groups or where is not None:
        counts, shown = _counted(place, source, groups, keys, complete, where)
    else:
        counts, shown = {(): Counts(rows, rows)}, {(): ()}
    used, total = sum(one.used for one in counts.values()), sum(one.total for one in counts.values())
    if not used:
        raise EmptyTableError(
            f"Table {source.text} has no row to learn from: {total} rows, {total} of them with a NULL in the variables."
        )
    selected = [value.as_(name, quoted=True) for value, name in zip([*keys, *values], [*groups, *names], strict=True)]
    # a condition that all rows fulfil would cost a look at every value
    conditions = ([complete] if used < total else []) + ([] if where is None else [where.copy()])
    query = exp.select(*selected).from_(source.table).where(*conditions)
    found = place.table(query, source.text, used, _columns(schema, groups, names, kinds))
    own = names if label is None else names[1:]
    return TrainingRows(found, query, tuple(own), None if label is None else names[0], tuple(groups), counts, shown)


def _columns(schema: pa.Schema, groups: Sequence[str], names: Sequence[str], kinds: Sequence[str]) -> pa.Schema | None:
    """What columns the rows have, where that is plain; only groups can be NULL."""
    if any(kind.endswith("[]") for kind in kinds):
        return None
    keys = [schema.field(group) for group in groups]
    keyed = [pa.field(key.name, key.type if _is_plain(key) else pa.string()) for key in keys]
    return pa.schema([*keyed, *(pa.field(n, arrow_type(k), nullable=False) for n, k in zip(names, kinds, strict=True))])


def _gaps(
    place: Place, source: Name, known: Sequence[exp.Expression], values: Sequence[exp.Expression], *, finite: bool
) -> tuple[list[exp.Expression], int | None]:
    """What must not be true of a row that is used: that a value is NULL or, if all are to be `finite`, NaN or infinite; and how
    many rows there are, where that is known."""
    full, rows = place.without_gaps(source, [one.name for one in known if isinstance(one, exp.Column)], finite=finite)
    gaps: list[exp.Expression] = []
    for one, value in zip(known, values, strict=True):
        if isinstance(one, exp.Column) and one.name in full:
            continue
        array = value.to.is_type(exp.DType.ARRAY)
        gaps.append(place.has_gaps(value) if array else _is_null(one))
        if finite:
            gaps.append(exp.not_(exp.paren(place.is_finite(value, array=array))))
    return gaps, rows


def of_groups(place: Place, source: Name, groups: Sequence[str]) -> list[tuple[Key, exp.Expression]]:
    """Every group of a table: its key, and the condition that its rows fulfil. Without grouping one, that all rows fulfil."""
    if not groups:
        return [((), exp.true())]
    columns = [exp.column(group, quoted=True) for group in groups]
    found = place.select(exp.select(*columns).distinct().from_(source.table).order_by(*columns))
    keys = [tuple(row[group] for group in groups) for row in found.to_pylist()]
    return [(key, of_group(groups, key)) for key in keys]


def of_group(groups: Sequence[str], key: Key) -> exp.Expression:
    """The condition that the rows of a group fulfil."""
    return exp.and_(exp.true(), *map(_is, groups, key))


def check_columns(place: Place, expression: exp.Expression, source: Name) -> exp.Expression:
    """The expression, with its columns known to be those of the table."""
    return _known(place, expression, place.schema(source), source)


def _is(column: str, value: Any) -> exp.Expression:
    name = exp.column(column, quoted=True)
    return exp.Is(this=name, expression=exp.null()) if value is None else exp.EQ(this=name, expression=literal(value))


def literal(value: Any) -> exp.Expression:
    """A value as a literal of SQL, exact for doubles."""
    if isinstance(value, (list, tuple)):
        return exp.Array(expressions=[literal(one) for one in value])
    if isinstance(value, float):  # made as it is: exp.cast would parse the name of the type for every number
        return exp.Cast(this=exp.Literal.string(repr(value)), to=exp.DataType(this=exp.DType.DOUBLE))
    return exp.convert(value)


def _counted(
    place: Place,
    source: Name,
    groups: Sequence[str],
    keys: Sequence[exp.Expression],
    complete: exp.Expression,
    where: exp.Expression | None,
) -> tuple[dict[Key, Counts], dict[Key, Key]]:
    one = exp.Literal.number(1)
    used = exp.Sum(this=exp.Case(ifs=[exp.If(this=complete.copy(), true=one)], default=exp.Literal.number(0)))
    columns = [exp.column(group, quoted=True) for group in groups]
    shown = [key.copy().as_(f"n_key_{number}") for number, key in enumerate(keys)]
    query = exp.select(*columns, *shown, exp.Count(this=exp.Star()).as_("n_total"), used.as_("n_used")).from_(
        source.table
    )
    if where is not None:
        query = query.where(where.copy())
    if columns:
        names = [column.copy() for column in columns]
        query = query.group_by(*names, *(key.copy() for key in keys)).order_by(*(name.copy() for name in names))
    counts, texts = {}, {}
    for row in place.select(query).to_pylist():
        key = tuple(row[group] for group in groups)
        counts[key] = Counts(int(row["n_total"]), int(row["n_used"] or 0))
        texts[key] = tuple(row[f"n_key_{number}"] for number in range(len(groups)))
    return counts, texts


def _key(place: Place, field: pa.Field) -> exp.Expression:
    column = exp.column(field.name, quoted=True)
    return column if _is_plain(field) else exp.cast(column, place.sql_type("text"))


def _is_plain(field: pa.Field) -> bool:
    kind = field.type
    return bool(pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_string(kind))


def _known(place: Place, expression: exp.Expression, schema: pa.Schema, source: Name) -> exp.Expression:
    """The expression with every column checked against the table, and quoted as the table writes it."""

    def checked(node: exp.Expression) -> exp.Expression:
        if not isinstance(node, exp.Column):
            return node
        if len(node.parts) > 2 or (node.table and node.table.lower() != source.parts[-1].lower()):
            raise OptionError("expression", node.sql("postgres"), f"a column of {source.text}, without other tables")
        name = match_columns("expression", [node.name], schema.names, source.text)[0]
        return exp.column(name, quoted=True)

    return expression.copy().transform(checked)


def is_array_column(schema: pa.Schema, name: str) -> bool:
    """Whether a column holds arrays of numbers."""
    kind = schema.field(name).type
    return bool(is_list(kind) or (pa.types.is_list(kind) and pa.types.is_decimal(kind.value_type)))


def _is_null(value: exp.Expression) -> exp.Expression:
    return exp.Is(this=exp.paren(value.copy()), expression=exp.null())


def _number(value: exp.Expression) -> float | None:
    """The number that is written out, if the expression is one."""
    while isinstance(value, (exp.Cast, exp.Paren)):
        value = value.this
    if isinstance(value, exp.Literal) and not value.is_string:
        return float(value.this)
    if isinstance(value, exp.Neg) and isinstance(value.this, exp.Literal):
        return -float(value.this.this)
    return None


def _caption(value: exp.Expression) -> str:
    """What messages call an expression: its own text."""
    return str(value.name if isinstance(value, exp.Column) else value.sql("postgres")[:60])


def _distinct_names(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    """The names, with a number behind those that are there already (DuckDB's names differ by more than case)."""
    seen = {name.lower() for name in taken}
    found = []
    for name in names:
        number, candidate = 1, name
        while candidate.lower() in seen:
            number += 1
            candidate = f"{name} {number}"
        seen.add(candidate.lower())
        found.append(candidate)
    return found
