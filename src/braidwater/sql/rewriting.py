"""What PostgreSQL writes otherwise than DuckDB: the few things that scripts made for MADlib use are turned, the rest is left."""

from __future__ import annotations

import re
from collections.abc import Callable

from sqlglot import exp

from braidwater.sql.names import parse_name
from braidwater.sql.registry import parse_array

ColumnTypes = Callable[[exp.Table], dict[str, str] | None]


_TURNED = re.compile(r"'\s*\{|\b(?:\w*serial|numeric|decimal|float)\b|\)\s*\.\s*\*", re.IGNORECASE)


def needs_turning(word: str, text: str) -> bool:
    """Whether a statement that begins with `word` may hold something to be turned; parsing a long one to find out is slow."""
    return word == "drop" or _TURNED.search(text) is not None


_INSERT = re.compile(r"insert\s+into\s+([^\s(]+)\s*(?:\([^)']*\)\s*)?values\b", re.IGNORECASE)
_ARRAY = re.compile(r"'\s*\{[-+\d\s,.{}eEnNaAuUlLiIfFtTyY]*\}\s*'")
_BRACKETS = str.maketrans("{}", "[]")


def plain_insert(text: str, column_types: ColumnTypes) -> str | None:
    """A long INSERT of array texts as DuckDB takes it, without parsing it: ``'{1,2}'`` as ``'[1,2]'``, where no column holds
    texts that only look like arrays. None where it has to be parsed."""
    head = _INSERT.match(text)
    if head is None or _ARRAY.search(text) is None:
        return None
    try:
        types = column_types(parse_name("table", head[1]).table)
    except ValueError:
        return None
    plain = ("BIGINT", "INTEGER", "SMALLINT", "TINYINT", "DOUBLE", "FLOAT", "BOOLEAN", "DATE", "TIMESTAMP")
    if not types or not all(kind.split("[")[0] in plain for kind in types.values()):
        return None
    return _ARRAY.sub(lambda found: found[0].translate(_BRACKETS), text)


def for_duckdb(statement: exp.Expression, text: str, column_types: ColumnTypes) -> list[exp.Expression] | None:
    """The statement as DuckDB takes it (one, or several in its place); None where its `text` can go as it is.

    `column_types` gives the types of a table's columns in their order, None where there is no such table.
    """
    if isinstance(statement, exp.Drop) and len(statement.args.get("tables") or ()) > 1:
        return [_drop_one(statement, table) for table in statement.args["tables"]]
    # FLOAT has 8 bytes in PostgreSQL and 4 in DuckDB; sqlglot knows
    changed = re.search(r"\bfloat\b", text, flags=re.IGNORECASE) is not None
    before: list[exp.Expression] = []
    if isinstance(statement, exp.Create):
        before = _without_serial(statement)
        changed |= _without_bare_numeric(statement) or bool(before)
    if isinstance(statement, exp.Insert):
        changed |= _arrays_of_insert(statement, column_types)
    for cast in list(statement.find_all(exp.Cast)):
        if cast.to.is_type(exp.DType.ARRAY) and _is_text(cast.this) and _is_array_text(cast.this.this):
            cast.this.replace(_array(cast.this.this))
            changed = True
    for dot in list(statement.find_all(exp.Dot)):
        if isinstance(dot.expression, exp.Star):  # (function(...)).*
            inner = dot.this.this if isinstance(dot.this, exp.Paren) else dot.this
            dot.replace(exp.Anonymous(this="unnest", expressions=[inner]))
            changed = True
    return [*before, statement] if changed else None


def _drop_one(statement: exp.Drop, table: exp.Expression) -> exp.Expression:
    one = statement.copy()
    one.set("tables", [table.copy()])
    return one


def _without_serial(statement: exp.Create) -> list[exp.Expression]:
    """Columns of type SERIAL as integers with a sequence's next value, and the statements that make the sequences."""
    made: list[exp.Expression] = []
    table = statement.find(exp.Table)
    for column in statement.find_all(exp.ColumnDef):
        kind = column.args.get("kind")
        width = {exp.DType.SERIAL: "INT", exp.DType.BIGSERIAL: "BIGINT", exp.DType.SMALLSERIAL: "SMALLINT"}
        if kind is None or kind.this not in width or table is None:
            continue
        name = f"{table.name}_{column.name}_seq"
        column.set("kind", exp.DataType.build(width[kind.this]))
        following = exp.Anonymous(
            this="nextval", expressions=[exp.Literal.string(exp.to_identifier(name, quoted=True).sql())]
        )
        column.append("constraints", exp.ColumnConstraint(kind=exp.DefaultColumnConstraint(this=following)))
        made.append(exp.Create(this=exp.to_table(name), kind="SEQUENCE", exists=True))
    return made


def _without_bare_numeric(statement: exp.Create) -> bool:
    """NUMERIC without digits holds any number in PostgreSQL, three digits in DuckDB: it becomes DOUBLE."""
    changed = False
    for kind in list(statement.find_all(exp.DataType)):
        if kind.this == exp.DType.DECIMAL and not kind.expressions:
            kind.replace(exp.DataType.build("DOUBLE"))
            changed = True
    return changed


def _arrays_of_insert(statement: exp.Insert, column_types: ColumnTypes) -> bool:
    """Texts such as '{1,2}' in VALUES, where the column takes an array."""
    values, target = statement.expression, statement.this
    names = None
    if isinstance(target, exp.Schema):
        names, target = [one.name.lower() for one in target.expressions], target.this
    if not isinstance(values, exp.Values) or not isinstance(target, exp.Table):
        return False
    if not any(_is_text(node) and _is_array_text(node.this) for node in values.find_all(exp.Literal)):
        return False
    types = column_types(target) or {}
    kinds = (
        list(types.values()) if names is None else [{n.lower(): t for n, t in types.items()}.get(n, "") for n in names]
    )
    changed = False
    for row in values.expressions:
        for value, kind in zip(row.expressions, kinds, strict=False):
            if kind.endswith("[]") and _is_text(value) and _is_array_text(value.this):
                value.replace(_array(value.this))
                changed = True
    return changed


def _is_text(node: exp.Expression) -> bool:
    return isinstance(node, exp.Literal) and bool(node.is_string)


def _is_array_text(text: str) -> bool:
    return re.fullmatch(r"\s*\{.*\}\s*", text, flags=re.DOTALL) is not None


def _array(text: str) -> exp.Expression:
    """An array literal of PostgreSQL as an array of SQL; elements that are no numbers are texts.

    >>> print(_array("{1,2.5,NULL}").sql("duckdb"), _array('{red,"a, b"}').sql("duckdb"))
    [1.0, 2.5, NULL] ['red', 'a, b']
    """
    try:
        return _of_numbers(parse_array("array", text))
    except ValueError:
        parts = re.findall(r'"((?:[^"\\]|\\.)*)"|([^,{}]+)', text.strip()[1:-1])
        return exp.array(*(_of_text(quoted, bare) for quoted, bare in parts))


def _of_text(quoted: str, bare: str) -> exp.Expression:
    if not quoted and bare.strip().upper() == "NULL":
        return exp.null()
    return exp.Literal.string(re.sub(r"\\(.)", r"\1", quoted) if quoted else bare.strip())


def _of_numbers(value: list[object] | float | None) -> exp.Expression:
    if isinstance(value, list):
        return exp.array(*(_of_numbers(one) for one in value))  # type: ignore[arg-type]
    if value is None:
        return exp.null()
    plain = value == value and abs(value) != float("inf")
    return exp.Literal.number(repr(value)) if plain else exp.cast(exp.Literal.string(str(value)), "DOUBLE")
