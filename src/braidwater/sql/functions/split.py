"""train_test_split: a table cut in two at random, where it lies."""

from __future__ import annotations

from sqlglot import exp

from braidwater.errors import OptionError
from braidwater.sql.names import match_columns
from braidwater.sql.place import Place
from braidwater.sql.registry import Columns, Output, Source, function


@function()
def train_test_split(
    place: Place,
    source_table: Source,
    output_table: Output,
    train_proportion: float,
    test_proportion: float | None = None,
    grouping_cols: Columns = None,
    target_cols: Columns = None,
    with_replacement: bool = False,
    separate_output_tables: bool = False,
) -> None:
    """Cut a table in two at random, each group of rows in the same shares. Exact: counts are rounded, not drawn.

    source_table: the table of the rows.
    output_table: the table to write into, with a column split (1 train, 0 test); or the first part of two names.
    train_proportion: the share of the rows to train on, between 0 and 1.
    test_proportion: the share to test on; the rest where it is NULL.
    grouping_cols: columns; each group of rows that agree in them is cut on its own.
    target_cols: columns to write, beside those of grouping_cols; all where it is NULL or '*'.
    with_replacement: whether a row may be drawn more than once.
    separate_output_tables: whether to write OUT_train and OUT_test in place of one table.
    """
    test = 1 - train_proportion if test_proportion is None else test_proportion
    for argument, share in (("train_proportion", train_proportion), ("test_proportion", test)):
        if not 0 < share < 1:
            raise OptionError(argument, share, "between 0 and 1")
    if not with_replacement and train_proportion + test > 1 + 1e-12:
        raise OptionError(
            "test_proportion", test, f"at most {1 - train_proportion:g}: the shares add up to more than 1"
        )
    outputs = [output_table]
    if separate_output_tables:
        outputs = [output_table.suffixed("_train"), output_table.suffixed("_test")]
    place.refuse_existing(*outputs)
    schema = place.schema(source_table)
    groups = match_columns("grouping_cols", grouping_cols or (), schema.names, source_table.text)
    others = match_columns("target_cols", target_cols or schema.names, schema.names, source_table.text)
    names = (*groups, *(name for name in others if name not in groups)) if target_cols else tuple(schema.names)
    if "split" in (name.lower() for name in names) and not separate_output_tables:
        raise OptionError("target_cols", "split", "without a column 'split', which is what is added")
    drawn = _drawn(source_table, groups, names, replace=with_replacement)
    total = min(train_proportion + test, 1.0) if not with_replacement else train_proportion + test
    chosen = _ceiling(exp.column("n_group"), total)
    testing = _ceiling(chosen, test / (train_proportion + test))
    is_test = exp.LTE(this=exp.column("n_place"), expression=testing)
    kept = exp.LTE(this=exp.column("n_place"), expression=chosen.copy())
    # the draw is written first: read twice, random() would be called twice, and rows be in both parts or in none
    held = output_table.suffixed("_braidwater_drawn")
    columns = [exp.column(name, quoted=True) for name in names]
    one, zero = exp.Literal.number(1), exp.Literal.number(0)
    split = exp.cast(exp.Case(ifs=[exp.If(this=is_test, true=zero)], default=one), "INT").as_("split")
    if not separate_output_tables:
        place.create_as(output_table, exp.select(*columns, split).from_(drawn.subquery("drawn")).where(kept))
        return
    place.create_as(held, drawn)
    for name, side in zip(outputs, (exp.not_(exp.paren(is_test.copy())), is_test), strict=True):
        place.create_as(name, exp.select(*(c.copy() for c in columns)).from_(held.table).where(kept.copy(), side))
    place.run(exp.Drop(tables=[held.table], kind="TABLE"))


def _drawn(source: Source, groups: tuple[str, ...], names: tuple[str, ...], *, replace: bool) -> exp.Select:
    """The rows with the size of their group and their place in a random order of it, or as many random rows of each group."""
    keys = [exp.column(group, quoted=True) for group in groups]
    columns = [exp.column(name, quoted=True) for name in names]
    # drawn below the window: PostgreSQL and DuckDB evaluate random() once for each row there
    random = exp.select(*(c.copy() for c in columns), *(k.copy() for k in keys if k not in columns))
    random = random.select(exp.Anonymous(this="random", expressions=[]).as_("n_random")).from_(source.table)
    size = exp.Window(this=exp.Count(this=exp.Star()), partition_by=[key.copy() for key in keys])
    order = exp.Order(expressions=[exp.Ordered(this=exp.column("n_random"))])
    place = exp.Window(this=exp.RowNumber(), partition_by=[key.copy() for key in keys], order=order)
    ordered = exp.select(*columns, size.as_("n_group"), place.as_("n_place")).from_(random.subquery("random_order"))
    if not replace:
        return ordered
    # each place of a group gets the row of a random place of it
    wanted = exp.cast(
        exp.Floor(this=exp.Mul(this=exp.Anonymous(this="random", expressions=[]), expression=exp.column("n_group"))),
        "BIGINT",
    )
    places = exp.select(
        *(key.as_(f"g{number}") for number, key in enumerate(keys)), "n_group", "n_place",
        exp.Add(this=wanted, expression=exp.Literal.number(1)).as_("n_wanted"),
    ).from_(ordered.subquery("places"))  # fmt: skip
    on = [exp.EQ(this=exp.column("n_place", table="found"), expression=exp.column("n_wanted", table="places"))]
    for number, group in enumerate(groups):
        same = exp.NullSafeEQ(
            this=exp.column(group, table="found", quoted=True), expression=exp.column(f"g{number}", table="places")
        )
        on.append(same)
    picked = [exp.column(name, table="found", quoted=True) for name in names]
    picked += [exp.column("n_group", table="places"), exp.column("n_place", table="places")]
    joined = exp.select(*picked).from_(places.subquery("places"))
    return joined.join(ordered.copy().subquery("found"), on=exp.and_(*on))


def _ceiling(count: exp.Expression, share: float) -> exp.Expression:
    """``ceil(count * share)``, where rounding of the share must not make it one more."""
    product = exp.Mul(this=exp.paren(count.copy()), expression=exp.cast(exp.Literal.string(repr(share)), "DOUBLE"))
    return exp.Ceil(this=exp.Sub(this=product, expression=exp.cast(exp.Literal.string("1e-9"), "DOUBLE")))
