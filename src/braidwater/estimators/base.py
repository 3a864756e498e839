"""What all estimators share: arrays or tables in, fitted attributes out, models that are saved and read back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar, cast

import numpy as np
import pyarrow as pa
from sklearn.base import BaseEstimator
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from braidwater.aggregates.base import Iteration
from braidwater.blocks import BlockSource
from braidwater.blocks.base import Array, BlockEncoder
from braidwater.encoding.base import FittedColumn
from braidwater.encoding.design import Design
from braidwater.encoding.encoding import Encoding, Features, FittedEncoding
from braidwater.encoding.numeric import is_number
from braidwater.engines import Engine, LocalEngine, default_engine
from braidwater.errors import DataWarning, EmptyTableError, OptionError, UnsupportedError
from braidwater.estimators.arrays import array_table
from braidwater.events import Planned, emit, running
from braidwater.planner import Plan, plan_table
from braidwater.planner.base import Work
from braidwater.saving import load_model, save_model
from braidwater.tables import Table, table

Target = Literal["class", "number", "none"]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Training:
    """What an estimator trains on: rows, their encoder and design, and the engine that reads them.

    `engine` is None where the plan may choose, `encoding` is None where the rows came as arrays; `classes` are those of the
    label, in the order of their codes. Where somebody else makes the passes (for many models at a time), `run` takes the
    iteration and gives its result, and `row_count` are the rows of this model; ``fit`` takes such a `Training` in place of X.
    """

    table: Table
    encoder: BlockEncoder
    design: Design
    engine: Engine | None
    encoding: FittedEncoding | None
    classes: Array | None
    label: str | None
    run: Callable[[Iteration[Any]], Any] | None = None
    row_count: int | None = None

    @property
    def rows(self) -> int:
        return self.table.statistics([]).rows if self.row_count is None else self.row_count


class TableEstimator(BaseEstimator):  # type: ignore[misc]
    """A scikit-learn estimator that takes tables as well as arrays.

    Subclasses say what they predict (`target`), fit from a `Training`, and turn themselves into a document and arrays.
    """

    target: ClassVar[Target] = "none"
    kind: ClassVar[str]  # the name in saved models and on the command line
    plan_: Plan | None = None  # how the last fit on a table was run, estimated and measured; None after a fit on arrays
    encoding_: FittedEncoding | None

    def work(self, table: Table, encoding: FittedEncoding) -> Work:
        """This estimator's training on `table`, as the planner sees it."""
        raise NotImplementedError

    def save(self, path: str | Path, *, metrics: Mapping[str, Any] | None = None) -> Path:
        """Write the fitted model into the folder `path` (safetensors and JSON); `load` reads it back.

        What it was trained on (table, schema, rows), its plan with the measured figures, and `metrics` if you give some are
        written down with it.
        """
        document, arrays = self.to_saved()
        document["plan"] = None if self.plan_ is None else self.plan_.to_json()
        document["metrics"] = dict(metrics or {})
        return save_model(path, self.kind, document, arrays)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The model that `save` wrote into the folder `path`."""
        saved = load_model(path, cls.kind)
        return cls.from_saved(saved.document, saved.arrays)

    def to_saved(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Everything that the fitted model is: a document that JSON can hold, and its arrays by name."""
        check_is_fitted(self)
        document: dict[str, Any] = {"parameters": {}, "fitted": {}, "classes": None}
        arrays: dict[str, Array] = {}
        for name, value in self.get_params(deep=False).items():
            document["parameters"][name] = value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in vars(self).items():
            if not name.endswith("_") or name.startswith("_") or name in ("plan_", "encoding_", "classes_"):
                continue
            if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
                arrays[name] = value
            elif isinstance(value, np.ndarray):
                document["fitted"][name] = {"strings": value.tolist()}
            else:
                document["fitted"][name] = value
        classes = getattr(self, "classes_", None)
        if classes is not None:
            document["classes"] = {"dtype": classes.dtype.str, "values": classes.tolist()}
        encoding = getattr(self, "encoding_", None)
        document["encoding"] = None if encoding is None else encoding.to_json()
        return document, arrays

    @classmethod
    def from_saved(cls, document: dict[str, Any], arrays: dict[str, Array]) -> Self:
        """The model that `to_saved` described."""
        model: Any = cls(**document["parameters"])
        for name, value in document["fitted"].items():
            if isinstance(value, dict) and set(value) == {"strings"}:
                value = np.array(value["strings"], dtype=object)
            setattr(model, name, value)
        for name, array in arrays.items():
            setattr(model, name, array)
        if document["classes"] is not None:
            dtype = document["classes"]["dtype"]
            model.classes_ = np.array(document["classes"]["values"], dtype=object if dtype == "|O" else np.dtype(dtype))
        model.encoding_ = None if document["encoding"] is None else FittedEncoding.from_json(document["encoding"])
        return cast(Self, model)

    def _open(
        self,
        X: Any,
        y: Any,
        *,
        features: Features,
        label: str | None,
        exclude: Sequence[str],
        sample_weight: Any,
        offset: Any,
        engine: Engine | None,
        dtypes: Sequence[Any] = (np.float64, np.float32),
    ) -> Training:
        """Check what `fit` was given and make a `Training` of it; sets what scikit-learn wants to find afterwards."""
        if isinstance(X, Training):
            return X
        if is_tabular(X) or label is not None or features is not None or exclude or (y is None and _has_text(X)):
            return self._open_table(X, y, features, label, exclude, sample_weight, offset, engine)
        return self._open_arrays(X, y, sample_weight, offset, engine, dtypes)

    def _open_table(
        self,
        X: Any,
        y: Any,
        features: Features,
        label: str | None,
        exclude: Sequence[str],
        weight: Any,
        offset: Any,
        engine: Engine | None,
    ) -> Training:
        if y is not None and label is None and isinstance(y, str):
            label, y = y, None
        if y is not None:
            raise OptionError("y", type(y).__name__, "left out where X is a table; name the column: label='...'")
        if self.target != "none" and label is None:
            raise OptionError("label", None, "the name of the column to learn")
        for name, value in (("sample_weight", weight), ("offset", offset)):
            if value is not None and not isinstance(value, str):
                raise OptionError(name, type(value).__name__, "the name of a column where X is a table")
        rows = table(X)
        encoding = Encoding(
            features=features,
            exclude=exclude if label is None or self.target != "none" else [*exclude, label],
            label=label if self.target != "none" else None,
            label_kind="class" if self.target == "class" else "number",
            weight=weight,
            offset=offset,
            nulls=getattr(self, "nulls", "refuse"),
            coding=getattr(self, "coding", "treatment"),
        )
        _refuse_empty(rows)
        fitted = encoding.fit(rows)
        self.encoding_ = fitted
        schema = {field.name: str(field.type) for field in rows.schema}
        self.trained_on_ = {"table": rows.name, "rows": rows.statistics([]).rows, "schema": schema}
        self.n_features_in_ = len(fitted.features)
        self.feature_names_ = np.array(fitted.design.names, dtype=object)
        if hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        classes = None if fitted.classes is None else _class_array(fitted.classes)
        return Training(rows, fitted, fitted.design, engine, fitted, classes, label)

    def _open_arrays(
        self, X: Any, y: Any, sample_weight: Any, offset: Any, engine: Engine | None, dtypes: Sequence[Any]
    ) -> Training:
        classes, codes = None, None
        options: dict[str, Any] = {"dtype": list(dtypes), "order": "C"}
        if self.target == "none":
            features = validate_data(self, X, **options)
        else:
            features, y = validate_data(self, X, y, y_numeric=self.target == "number", **options)
            if self.target == "class":
                from sklearn.utils.multiclass import check_classification_targets

                check_classification_targets(y)
                classes, codes = np.unique(y, return_inverse=True)
                codes = codes.astype(
                    np.uint8 if len(classes) <= 256 else np.uint16 if len(classes) <= 65536 else np.int32
                )
            else:
                codes = np.asarray(y, np.float64)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, features, dtype=np.float64, ensure_non_negative=True)
        if offset is not None:
            offset = _check_sample_weight(offset, features, dtype=np.float64)
        self.encoding_ = None
        self.trained_on_ = {"table": None, "rows": len(features), "schema": None}
        names = getattr(self, "feature_names_in_", None)
        self.feature_names_ = np.array(
            [f"x{j}" for j in range(features.shape[1])] if names is None else names, dtype=object
        )
        rows, encoder = array_table(
            features, tuple(self.feature_names_), label=codes, weight=sample_weight, offset=offset
        )
        return Training(rows, encoder, encoder.design, engine, None, classes, None)

    def _run(
        self, training: Training, iteration: Iteration[Result], *, passes: int, models: int | None = None
    ) -> Result:
        """Run the passes: as the planner chooses where the rows came as a table. `passes` counts them for arrays."""
        if training.run is not None:
            return cast(Result, training.run(iteration))
        if training.encoding is None:
            self.plan_ = None
            with BlockSource(training.table, training.encoder, passes=passes) as source:
                return (training.engine or default_engine()).iterate(source, iteration)
        work = self.work(training.table, training.encoding)
        work = work if models is None else replace(work, models=models)
        workers = None if training.engine is None else training.engine.workers
        self.plan_ = plan = plan_table(training.table, work, engine=training.engine, workers=workers)
        emit(Planned(text=str(plan)))
        engine = training.engine or LocalEngine(plan.chosen.workers)
        with (
            running(self.kind, rows=training.rows, passes=work.passes),
            BlockSource(training.table, training.encoder, passes=work.passes, cache=plan.chosen.cache) as source,
            plan.measuring(),
        ):
            return engine.iterate(source, iteration)

    def _features_of(self, X: Any) -> Array:
        """The encoded features ``(rows, width)`` of arrays (or of a data frame, where the model was fitted on a table)."""
        check_is_fitted(self)
        if self.encoding_ is None:
            return cast(Array, validate_data(self, X, dtype=[np.float64, np.float32], reset=False))
        if hasattr(X, "columns") or isinstance(X, pa.Table):
            rows = table(X).to_arrow().combine_chunks()
            if rows.num_rows == 0:
                return np.empty((0, len(self.feature_names_)))
            block = self.encoding_.for_prediction().block(rows.to_batches()[0])[0]
            return self.encoding_.design.dense(block).T
        values = np.asarray(X, np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.feature_names_):
            raise OptionError("X", f"array of shape {values.shape}", f"of shape (rows, {len(self.feature_names_)})")
        return values

    def _map(
        self, X: Any, compute: Callable[[Array], dict[str, pa.Array]], fields: list[pa.Field], engine: Engine | None
    ) -> Table:
        """The table X with the columns that `compute` makes of the encoded features of a batch, lazily."""
        check_is_fitted(self)
        rows = table(X)
        encoding = self.encoding_
        if encoding is None:
            encoding = self._encoding_by_name(rows)
        _warn_of_offset(encoding)
        taken = [field.name for field in fields if field.name in rows.column_names]
        if taken:
            raise UnsupportedError(f"Table {rows.name!r} has a column {taken[0]!r} already; rename it in a SELECT.")
        encoding = encoding.for_prediction()
        rows.require(encoding.columns)
        schema = pa.schema([*rows.schema, *fields])
        function = AddColumns(encoding, compute, schema)
        return (engine or default_engine()).map_blocks(
            rows, function, schema, name=f"{rows.name} with {fields[0].name}"
        )

    def _with_label(self, X: Any, label: str | None, weight: str | None) -> tuple[Table, FittedEncoding]:
        """The table X and an encoding of features, label and weights, for evaluation."""
        check_is_fitted(self)
        rows = table(X)
        _refuse_empty(rows)
        encoding = self.encoding_ or self._encoding_by_name(rows)
        _warn_of_offset(encoding)
        fitted_label = encoding.label
        label = label or (fitted_label.column if fitted_label is not None else None)
        if label is None:
            raise OptionError("label", None, "the name of the column to compare with")
        if fitted_label is None or fitted_label.column != label:
            kind: Any = "class" if self.target == "class" else "number"
            names = [column.column for column in encoding.features]
            fitted_label = Encoding(features=names, label=label, label_kind=kind).fit(rows).label
            if self.target == "class":
                fitted_label = replace(cast(Any, fitted_label), classes=tuple(self.classes_.tolist()))
        roles = None if weight is None else fit_weight_of(rows, weight)
        return rows, replace(encoding, label=fitted_label, weight=roles, offset=None).for_evaluation()

    def _encoding_by_name(self, rows: Table) -> FittedEncoding:
        """For a model that was fitted on arrays: the columns of a table in the order of their names."""
        names = [str(name) for name in self.feature_names_]
        if not set(names) <= set(rows.column_names):
            raise UnsupportedError(
                f"The model was fitted on arrays whose columns have no names that table {rows.name!r} has. "
                "Fit it on a table, or predict from an array."
            )
        return Encoding(features=names).fit(rows)


@dataclass(frozen=True)
class AddColumns:
    """Appends what `compute` makes of the encoded features to a batch; rows that the NULL policy drops get NULL."""

    encoding: FittedEncoding
    compute: Callable[[Array], dict[str, pa.Array]]
    schema: pa.Schema

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        block, kept = self.encoding.block(batch)
        columns = self.compute(self.encoding.design.dense(block).T)
        arrays = list(batch.columns)
        if kept is not None:
            places = pa.array(np.cumsum(kept) - 1, mask=~kept)
            columns = {name: values.take(places) for name, values in columns.items()}
        return pa.record_batch([*arrays, *columns.values()], schema=self.schema)


def is_tabular(X: Any) -> bool:
    """Whether X is for `braidwater.table` rather than an array: an address, a table, Arrow data, a connection, a relation."""
    if isinstance(X, (str, Path, Table, pa.Table, pa.RecordBatch, pa.RecordBatchReader)):
        return True
    module = type(X).__module__.partition(".")[0]
    return module in ("duckdb", "_duckdb", "ibis", "adbc_driver_manager", "psycopg", "pyspark")


def _warn_of_offset(encoding: FittedEncoding) -> None:
    """Predictions are of the features alone: say so where the model was fitted with an offset."""
    if encoding.offset is not None:
        message = f"The model was fitted with the offset {encoding.offset.column!r}, which predictions leave out."
        warnings.warn(f"{message} Add it to decision_function(X) for those that hold it.", DataWarning, stacklevel=4)


def _has_text(X: Any) -> bool:
    """Whether X is a data frame with columns that no array of numbers can hold."""
    return hasattr(X, "columns") and not all(is_number(field.type) for field in table(X).schema)


def fit_weight_of(rows: Table, column: str) -> FittedColumn:
    """The encoder of a column of row weights."""
    names = [name for name in rows.column_names if name != column][:1]
    fitted = Encoding(features=names, weight=column).fit(rows).weight
    assert fitted is not None
    return fitted


def _refuse_empty(rows: Table) -> None:
    if rows.statistics([]).rows == 0:
        raise EmptyTableError(f"Table {rows.name!r} has no rows; there is nothing to learn from.")


def _class_array(classes: Sequence[Any]) -> Array:
    values = np.array(list(classes))
    if len(values) != len(classes) or values.ndim != 1 or values.dtype.kind == "U":
        values = np.empty(len(classes), dtype=object)
        values[:] = list(classes)
    return values
