"""pca_train and pca_project: principal components of a matrix that lies in a table, and its coordinates along them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa
from sqlglot import exp

from braidwater.blocks.base import Array
from braidwater.encoding.numeric import is_number
from braidwater.errors import ColumnTypeError, DataError, OptionError, UnsupportedError
from braidwater.estimators import PCA
from braidwater.sql.functions.buffers import as_array, buffers
from braidwater.sql.names import Name, match_columns
from braidwater.sql.place import Place
from braidwater.sql.registry import Columns, Count, Expression, Output, Source, function
from braidwater.sql.rows import Features, TrainingRows, is_array_column, of_group, of_groups, training_rows

COMPONENTS = {"row_id": "integer", "principal_components": "float8[]", "std_dev": "float8", "proportion": "float8"}
SUMMARY = {"rows_used": "bigint", "exec_time": "float8", "use_correlation": "boolean"}
PROJECTED = {"exec_time": "float8", "residual_norm": "float8", "relative_residual_norm": "float8"}
_BATCH = 16_384


@function()
def pca_train(
    place: Place,
    source_table: Source,
    out_table: Output,
    row_id: Expression,
    components_param: Count,
    grouping_cols: Columns = None,
    lanczos_iter: int = 0,
    use_correlation: bool = False,
    result_summary_table: Output | None = None,
) -> None:
    """Principal components: the directions along which the rows vary most. One pass for all products of the columns.

    source_table: the matrix: row_id and a column of arrays, or row_id and columns of numbers.
    out_table: the table to write the components into; OUT_mean, with the means of the columns, is written beside it.
    row_id: the column that numbers the rows.
    components_param: how many components, an integer; or the share of the variance that they explain, a number like 0.9 or 1.0.
    grouping_cols: columns; components are found for each group of rows that agree in them.
    lanczos_iter: taken as it is in MADlib; at least as many as components. The spectrum is exact whatever it is.
    use_correlation: must be FALSE, as in MADlib.
    result_summary_table: a table to write rows and milliseconds into.
    """
    if use_correlation:
        raise UnsupportedError("use_correlation must be FALSE; standardise the columns in a view instead.")
    wanted = components_param
    if wanted <= 0 or (isinstance(wanted, float) and wanted > 1):
        raise OptionError("components_param", wanted, "a positive integer, or a share above 0.0 and up to 1.0")
    if 0 < lanczos_iter < wanted:
        raise OptionError("lanczos_iter", lanczos_iter, f"0, or at least components_param={wanted}")
    means = out_table.suffixed("_mean")
    place.refuse_existing(out_table, means, *([result_summary_table] if result_summary_table else []))
    begun = time.perf_counter()
    groups, features = _matrix(place, source_table, row_id, grouping_cols or ())
    found: list[dict[str, Any]] = []
    centres: list[dict[str, Any]] = []
    used = 0
    for key, where in of_groups(place, source_table, groups):
        rows = training_rows(place, source_table, features, where=where)
        model = _components(place, rows, wanted, lanczos_iter)
        named = dict(zip(groups, key, strict=True))
        used += rows.used
        for number, (vector, variance, share) in enumerate(
            zip(model.components_, model.explained_variance_, model.explained_variance_ratio_, strict=True), start=1
        ):
            figures = {"row_id": number, "principal_components": vector, "std_dev": float(np.sqrt(variance))}
            found.append(named | figures | {"proportion": float(share)})
        centres.append(named | {"column_mean": model.mean_})
    place.create(out_table, COMPONENTS, found, keys=groups, of=source_table)
    place.create(means, {"column_mean": "float8[]"}, centres, keys=groups, of=source_table)
    if result_summary_table is not None:
        taken = 1e3 * (time.perf_counter() - begun)
        place.create(result_summary_table, SUMMARY, [{"rows_used": used, "exec_time": taken, "use_correlation": False}])


@function()
def pca_project(
    place: Place,
    source_table: Source,
    pc_table: Source,
    out_table: Output,
    row_id: Expression,
    residual_table: Output | None = None,
    result_summary_table: Output | None = None,
) -> None:
    """The coordinates of the rows of a matrix along principal components.

    source_table: the matrix, as for pca_train; with the grouping columns, if it was trained with some.
    pc_table: what pca_train wrote; its _mean is read too.
    out_table: the table to write into: row_id and the array row_vec.
    row_id: the column that numbers the rows.
    residual_table: a table to write what the components leave of each row into.
    result_summary_table: a table to write milliseconds and the norms of the residuals into.
    """
    others = [name for name in (residual_table, result_summary_table) if name is not None]
    place.refuse_existing(out_table, *others)
    begun = time.perf_counter()
    schema = place.schema(pc_table)
    groups = tuple(name for name in schema.names if name not in COMPONENTS)
    groups, features = _matrix(place, source_table, row_id, groups)
    identity = match_columns("row_id", [row_id.name], place.schema(source_table).names, source_table.text)[0]
    for name in [out_table, *([residual_table] if residual_table else [])]:
        place.create(name, {"row_id": "bigint", "row_vec": "float8[]"}, [], keys=groups, of=source_table)
    squares, total = 0.0, 0.0
    for key, where in of_groups(place, source_table, groups):
        components, mean = _trained(place, pc_table, of_group(groups, key))
        query = _numbered(place, source_table, features, identity, where)
        with buffers(place, query, out_table.suffixed("_braidwater_held"), _BATCH, shuffle=False) as parts:
            for part in parts:
                arrays = [as_array(part.column(name), name) for name in part.column_names if name.startswith("x")]
                matrix = arrays[0] if features.array else np.column_stack(arrays)
                if matrix.shape[1] != len(mean):
                    raise DataError(f"Rows of {matrix.shape[1]} numbers, but the components are of {len(mean)}.")
                centred = matrix - mean
                projected = centred @ components.T
                ids = part.column("id").combine_chunks()
                place.insert(out_table, _written(place, source_table, groups, key, ids, projected))
                left = centred - projected @ components
                squares += float(np.sum(left**2))
                total += float(np.sum(matrix**2))
                if residual_table is not None:
                    place.insert(residual_table, _written(place, source_table, groups, key, ids, left))
    if result_summary_table is not None:
        norm = float(np.sqrt(squares))
        figures = {
            "exec_time": 1e3 * (time.perf_counter() - begun),
            "residual_norm": norm,
            "relative_residual_norm": norm / float(np.sqrt(total)) if total > 0 else 0.0,
        }
        place.create(result_summary_table, PROJECTED, [figures])


def _matrix(
    place: Place, source: Name, row_id: Expression, groups: tuple[str, ...]
) -> tuple[tuple[str, ...], Features]:
    """The grouping columns and the columns of the matrix: all but those and the row's number."""
    if not isinstance(row_id, exp.Column):
        raise OptionError("row_id", row_id.sql("postgres"), "the name of a column")
    schema = place.schema(source)
    names = match_columns("row_id", [row_id.name], schema.names, source.text)
    groups = match_columns("grouping_cols", groups, schema.names, source.text)
    rest = [name for name in schema.names if name not in (*names, *groups)]
    arrays = [name for name in rest if is_array_column(schema, name)]
    if len(arrays) == 1:
        return groups, Features((exp.column(arrays[0], quoted=True),), True, None)
    if arrays or not rest:
        raise ColumnTypeError(
            f"Table {source.text} must have one column of arrays, or columns of numbers, beside {names[0]}; it has "
            f"{', '.join(rest) or 'nothing'}."
        )
    for name in rest:
        if not is_number(schema.field(name).type):
            raise ColumnTypeError(
                f"Column {name!r} is {schema.field(name).type}, not a number. Leave it out with a view."
            )
    return groups, Features(tuple(exp.column(name, quoted=True) for name in rest), False, None)


def _components(place: Place, rows: TrainingRows, wanted: float, lanczos_iter: int) -> Any:
    if rows.skipped:
        raise DataError(f"The matrix has NULLs in {rows.skipped} rows. Leave them out with a view.")
    if rows.used < 2:
        raise DataError("Principal components need at least 2 rows; a group has one.")
    count: int | float | None = wanted if isinstance(wanted, int) or wanted < 1 else None
    model = PCA(count).fit(rows.table, features=list(rows.features), engine=place.engine)
    kept = model.n_components_ if not lanczos_iter else min(model.n_components_, lanczos_iter)
    model.components_ = model.components_[:kept]
    model.explained_variance_ = model.explained_variance_[:kept]
    model.explained_variance_ratio_ = model.explained_variance_ratio_[:kept]
    return model


def _trained(place: Place, name: Name, where: exp.Expression) -> tuple[Array, Array]:
    query = exp.select("principal_components").from_(name.table).where(where).order_by(exp.column("row_id"))
    components = place.select(query).column(0).to_pylist()
    means = (
        place.select(exp.select("column_mean").from_(name.suffixed("_mean").table).where(where)).column(0).to_pylist()
    )
    if not components or not means:
        raise DataError(f"Table {name.text} has no components for a group of the rows; train them with the same rows.")
    return np.array(components), np.array(means[0])


def _numbered(place: Place, source: Name, features: Features, identity: str, where: exp.Expression) -> exp.Select:
    """The numbers of rows and the matrix."""
    kind = "float8[]" if features.array else "float8"
    values = [exp.cast(value.copy(), place.sql_type(kind)).as_(f"x{n}") for n, value in enumerate(features.values)]
    numbers = exp.cast(exp.column(identity, quoted=True), place.sql_type("bigint")).as_("id")
    return exp.select(numbers, *values).from_(source.table).where(where)


def _written(
    place: Place, source: Name, groups: tuple[str, ...], key: tuple[Any, ...], ids: pa.Array, matrix: Array
) -> pa.Table:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(matrix).reshape(-1)), matrix.shape[1])
    types = place.schema(source)
    columns = {
        name: pa.array([value] * len(ids), types.field(name).type) for name, value in zip(groups, key, strict=True)
    }
    return pa.table(columns | {"row_id": ids, "row_vec": vectors.cast(pa.list_(pa.float64()))})
