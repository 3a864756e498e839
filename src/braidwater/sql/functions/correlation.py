"""correlation and covariance of the columns of a table."""

from __future__ import annotations

from typing import Any

import numpy as np
from sqlglot import exp

from braidwater.aggregates import Gram
from braidwater.blocks import BlockSource
from braidwater.encoding import Encoding
from braidwater.encoding.numeric import Numeric, is_number
from braidwater.engines import default_engine
from braidwater.errors import ColumnTypeError, OptionError
from braidwater.sql.names import match_columns
from braidwater.sql.place import Place
from braidwater.sql.registry import Columns, Output, Source, function
from braidwater.sql.rows import of_groups


@function(columns=("output_table", "num_col", "duration"))
def correlation(
    place: Place,
    source_table: Source,
    output_table: Output,
    target_cols: Columns = None,
    verbose: bool = False,
    grouping_cols: Columns = None,
    n_groups_per_run: int = 10,
) -> dict[str, Any]:
    """Pearson's correlations of numeric columns, a lower triangle. A NULL counts as the mean of its column.

    source_table: the table of the rows.
    output_table: the table to write into; OUT_summary is written beside it.
    target_cols: the columns; all numeric ones where it is NULL or '*'.
    verbose: taken as it is in MADlib.
    grouping_cols: columns; correlations are computed for each group of rows that agree in them.
    n_groups_per_run: taken as it is in MADlib.
    """
    return _related(place, "Correlation", source_table, output_table, target_cols, grouping_cols)


@function(columns=("output_table", "num_col", "duration"))
def covariance(
    place: Place,
    source_table: Source,
    output_table: Output,
    target_cols: Columns = None,
    verbose: bool = False,
    grouping_cols: Columns = None,
    n_groups_per_run: int = 10,
) -> dict[str, Any]:
    """Covariances of numeric columns (divided by the number of rows), a lower triangle. A NULL counts as its column's mean.

    source_table: the table of the rows.
    output_table: the table to write into; OUT_summary is written beside it.
    target_cols: the columns; all numeric ones where it is NULL or '*'.
    verbose: taken as it is in MADlib.
    grouping_cols: columns; covariances are computed for each group of rows that agree in them.
    n_groups_per_run: taken as it is in MADlib.
    """
    return _related(place, "Covariance", source_table, output_table, target_cols, grouping_cols)


def _related(
    place: Place, method: str, source: Source, output: Output, targets: Columns, grouping: Columns
) -> dict[str, Any]:
    import time

    begun = time.perf_counter()
    summary = output.suffixed("_summary")
    place.refuse_existing(output, summary)
    schema = place.schema(source)
    groups = match_columns("grouping_cols", grouping or (), schema.names, source.text)
    numeric = [field.name for field in schema if is_number(field.type) and field.name not in groups]
    names = match_columns("target_cols", targets, schema.names, source.text) if targets else tuple(numeric)
    strange = [name for name in names if name not in numeric]
    if strange:
        raise ColumnTypeError(
            f"Column {strange[0]!r} is {schema.field(strange[0]).type}, not a number (or it is grouped by)."
        )
    if len(names) < 2:
        raise OptionError("target_cols", list(names), "at least 2 numeric columns")
    rows: list[dict[str, Any]] = []
    abouts: list[dict[str, Any]] = []
    for key, where in of_groups(place, source, groups):
        query = exp.select(*(exp.column(name, quoted=True) for name in names)).from_(source.table).where(where)
        matrix, mean, count = _products(place, query, source.text, names)
        if method == "Correlation":
            spread = np.sqrt(np.diag(matrix))
            with np.errstate(divide="ignore", invalid="ignore"):
                matrix = matrix / np.outer(spread, spread)
            np.fill_diagonal(matrix, 1.0)
        named = dict(zip(groups, key, strict=True))
        for number, name in enumerate(names):
            lower = {other: float(matrix[number, place]) for place, other in enumerate(names[: number + 1])}
            rows.append(named | {"column_position": number + 1, "variable": name} | lower)
        abouts.append(
            named
            | {
                "method": method, "source": source.text, "output_table": output.text, "column_names": list(names),
                "mean_vector": mean, "total_rows_processed": count,
            }
        )  # fmt: skip
    place.create(
        output,
        {"column_position": "integer", "variable": "text"} | dict.fromkeys(names, "float8"),
        rows,
        keys=groups,
        of=source,
    )
    types = {
        "method": "text", "source": "text", "output_table": "text", "column_names": "text[]", "mean_vector": "float8[]",
        "total_rows_processed": "bigint",
    }  # fmt: skip
    place.create(summary, types, abouts, keys=groups, of=source)
    return {"output_table": output.text, "num_col": len(names), "duration": time.perf_counter() - begun}


def _products(place: Place, query: exp.Select, name: str, names: tuple[str, ...]) -> Any:
    """Centred products divided by the rows, means and rows; NULLs are at the mean."""
    table = place.table(query, name)
    encoders = {column: Numeric(nulls="mean", indicator=False) for column in names}
    encoding = Encoding(features=encoders).fit(table)
    engine = place.engine or default_engine()
    with BlockSource(table, encoding) as source:
        gram = engine.aggregate(source, Gram(encoding.design))
    return gram.features / gram.rows, gram.mean[: len(names)], gram.rows
