"""What a model is worth on rows that it has not seen, several times."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.base import BaseEstimator, clone

from braidwater.blocks.base import Array
from braidwater.encoding.encoding import Features, FittedEncoding
from braidwater.engines import Engine, LocalEngine, default_engine
from braidwater.errors import OptionError, UnsupportedError
from braidwater.estimators.base import TableEstimator
from braidwater.model_selection.declared import encoding_for
from braidwater.model_selection.fold_fit import PART, FoldFit, fit_folds, fold_work, part_keys, parted
from braidwater.model_selection.folds import Folds, splitter_of
from braidwater.model_selection.group_predictions import PredictByGroup, prediction_fields
from braidwater.model_selection.model_stack import ModelStack
from braidwater.model_selection.variants import is_trainer
from braidwater.planner import Plan, plan_table
from braidwater.planner.base import Work
from braidwater.tables import Table, table
from braidwater.tables.split import SampledTable

METRICS = {
    "class": ("accuracy", "log_loss", "roc_auc"),
    "number": ("r2", "rmse", "mae"),
    "none": ("mean_squared_distance", "explained_variance_ratio"),
}


@dataclass(frozen=True)
class CrossValidated:
    """What a cross validation found.

    `folds` is a table with a row a fold: `fold` from 1, `train_rows`, `test_rows`, `seconds` (of the fold alone, or its share of
    what all took together) and the metrics. `mean` and `deviation` (of the sample, n - 1) are of each metric. `models` are those
    of the folds, `predictions` the table with each row's prediction by the model that has not seen it; None unless asked for.
    """

    folds: pa.Table
    models: list[Any] | None = None
    predictions: Table | None = None
    plan: Plan | None = None

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics."""
        return [name for name in self.folds.column_names if name not in ("fold", "train_rows", "test_rows", "seconds")]

    @property
    def mean(self) -> dict[str, float]:
        return {name: float(np.mean(self.folds.column(name).to_numpy())) for name in self.metrics}

    @property
    def deviation(self) -> dict[str, float]:
        return {name: float(np.std(self.folds.column(name).to_numpy(), ddof=1)) for name in self.metrics}

    def __str__(self) -> str:
        lines = [f"{name}: {self.mean[name]:.6g} ± {self.deviation[name]:.2g}" for name in self.metrics]
        return "\n".join([f"{self.folds.num_rows} folds", *lines])


def cross_validate(
    model: Any,
    data: Any,
    *,
    label: str | None = None,
    folds: Any = 5,
    metrics: Sequence[str] | None = None,
    features: Features = None,
    exclude: Sequence[str] = (),
    sample_weight: str | None = None,
    predictions: bool = False,
    models: bool = False,
    seed: int = 0,
    engine: Engine | None = None,
) -> CrossValidated:
    """Train `model` on the training rows of each fold and test it on the others.

    `model` is an unfitted estimator or trainer, or anything with ``fit(table, label=...)`` and ``evaluate(table)``, a search too
    (nested cross validation); it stays as it is. `folds` is a number (stratified where a class is learnt), `KFold`,
    `StratifiedKFold`, `GroupKFold("user")`, `TimeSeriesSplit("time")`, or a splitter of scikit-learn. `metrics` are of those
    that the model's ``evaluate`` gives; by default all that cost no pass of their own.

    No row is copied: folds are parts of one table. The models of an estimator are trained by the same passes over one set of
    blocks, and its encoders (dictionaries, means that stand for NULLs, declared standardisation) are fitted once on the whole
    table. Linear regression and covariance PCA take a single pass, whatever the folds: training and test follow from products of
    columns by part. Trainers and searches are trained fold by fold; a trainer's folds are selections of one block cache.

    >>> rows = pa.table({"x": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], "y": [0.0, 1.1, 1.9, 3.2, 3.9, 5.1]})
    >>> from braidwater.estimators import LinearRegression
    >>> cross_validate(LinearRegression(), rows, label="y", folds=3).mean["rmse"] < 0.3
    True
    """
    return CrossValidation(model, folds=folds, metrics=metrics, seed=seed).run(
        data, label=label, features=features, exclude=exclude, sample_weight=sample_weight, predictions=predictions,
        models=models, engine=engine,
    )  # fmt: skip


@dataclass(frozen=True)
class CrossValidation:
    """A cross validation that has not run yet, for `braidwater.explain`; see `cross_validate`."""

    model: Any
    folds: Any = 5
    metrics: Sequence[str] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        known = METRICS[self.target] if self.target in METRICS else METRICS["class"] + METRICS["number"]
        for name in self.metrics or ():
            if name not in known:
                raise OptionError("metrics", name, f"one of {', '.join(known)}")
        splitter_of(self.folds, self.target)

    @property
    def target(self) -> str:
        """What the model learns: class, number or none; unknown where only the label tells."""
        found: str = getattr(self.model, "target", "unknown")
        return found

    def _cut(self, rows: Table, label: str | None) -> Folds:
        target = self.target
        if target == "unknown" and label is not None:
            type_ = rows.schema.field(label).type
            target = "number" if pa.types.is_floating(type_) or pa.types.is_decimal(type_) else "class"
        return splitter_of(self.folds, target).cut(rows, label, self.seed)

    def run(
        self,
        data: Any,
        *,
        label: str | None = None,
        features: Features = None,
        exclude: Sequence[str] = (),
        sample_weight: str | None = None,
        predictions: bool = False,
        models: bool = False,
        engine: Engine | None = None,
    ) -> CrossValidated:
        """Cut, train and test."""
        rows = table(data)
        if self.target != "none" and label is None:
            raise OptionError("label", None, "the name of the column to learn")
        rows.require([label] if label is not None else [])
        folds = self._cut(rows, label)
        if not isinstance(self.model, TableEstimator):
            if predictions:
                raise UnsupportedError(
                    f"A {type(self.model).__name__} gives no out-of-fold predictions; take models=True and predict with those."
                )
            given = {"features": features, "exclude": list(exclude), "weight": sample_weight, "engine": engine}
            return self._in_turn(rows, folds, label, {name: value for name, value in given.items() if value}, models)
        template: Any = clone(self.model)
        training = template._open(
            parted(rows, folds), None, features=features, label=label, exclude=[*exclude, PART],
            sample_weight=sample_weight, offset=None, engine=engine,
        )  # fmt: skip
        begun = time.perf_counter()
        found = fit_folds(template, training, folds, self.metrics, engine)
        seconds = [(time.perf_counter() - begun) / len(folds)] * len(folds)
        if training.classes is not None:
            template.classes_ = training.classes
        return CrossValidated(
            self._table(folds, found.metrics, seconds),
            found.models if models else None,
            _out_of_fold(template, found, folds, rows, engine) if predictions else None,
            found.plan,
        )

    def encode(
        self, rows: Table, label: str | None, features: Features = None, exclude: Sequence[str] = ()
    ) -> FittedEncoding:
        """The encoding of the features and the label, fitted on `rows`."""
        return encoding_for(self.model, rows, label, features, exclude)

    def explain(
        self,
        data: Any,
        *,
        label: str | None = None,
        features: Features = None,
        exclude: Sequence[str] = (),
        **wishes: Any,
    ) -> Plan:
        """What `run` would do, and its cost. The folds are cut, nothing is trained."""
        rows = table(data)
        return plan_table(rows, self.work(rows, self.encode(rows, label, features, exclude)), **wishes)

    def work(self, rows: Table, encoding: FittedEncoding) -> Work:
        """All folds as the planner sees them. Folds that are trained in turn are as many trainings one after another."""
        folds = len(self._cut(rows, encoding.label.column if encoding.label else None))
        work: Work = self.model.work(rows, encoding)
        if isinstance(self.model, TableEstimator):
            return fold_work(self.model, work, folds, held_out=work.passes == 1)
        return replace(work, name=f"{work.name}, {folds} folds", passes=work.passes * (folds - 1))

    def _in_turn(
        self, rows: Table, folds: Folds, label: str | None, given: dict[str, Any], keep: bool
    ) -> CrossValidated:
        """Fold by fold, each on a table of its own parts."""
        metrics, seconds, models = [], [], []
        for train, test in self._tables(rows, folds, {"label": label, **given}):
            begun = time.perf_counter()
            model = _fresh(self.model)
            model.fit(train, label=label, **given)
            metrics.append(model.evaluate(test))
            seconds.append(time.perf_counter() - begun)
            models.append(model)
        return CrossValidated(self._table(folds, metrics, seconds), models if keep else None)

    def _tables(self, rows: Table, folds: Folds, given: dict[str, Any]) -> Sequence[tuple[Table, Table]]:
        """Training and test rows of each fold. Those that trainers read lie in one cache for all folds, as far as encoders that
        are fitted on the rows of a fold write the same into it."""
        from braidwater.model_selection.fold_trials import FoldRows
        from braidwater.model_selection.rows import RememberedTable

        engine = given.get("engine") or default_engine()
        if is_trainer(self.model) and rows.fingerprint() is not None and isinstance(engine, LocalEngine):
            shared = FoldRows.of(RememberedTable(rows), folds)
            shared.encode(self.model, given, (), engine)
            return shared.pairs

        def part(chosen: Array, name: str) -> Table:
            return SampledTable(rows, folds.parts, np.flatnonzero(chosen).tolist(), name=f"{rows.name} ({name})")

        pairs = zip(folds.train, folds.test, strict=True)
        return [(part(train, f"train {k + 1}"), part(test, f"test {k + 1}")) for k, (train, test) in enumerate(pairs)]

    def _table(self, folds: Folds, found: list[dict[str, Any]], seconds: list[float]) -> pa.Table:
        known = [name for names in METRICS.values() for name in names if name in found[0]]
        names = list(dict.fromkeys(self.metrics or known))
        columns: dict[str, Any] = {"fold": np.arange(1, len(folds) + 1)}
        columns |= {"train_rows": folds.train_rows, "test_rows": folds.test_rows, "seconds": seconds}
        return pa.table(columns | {name: [one.get(name, float("nan")) for one in found] for name in names})


def _fresh(model: Any) -> Any:
    """An unfitted copy."""
    return clone(model) if isinstance(model, BaseEstimator) else copy.deepcopy(model)


def _out_of_fold(template: Any, found: FoldFit, folds: Folds, rows: Table, engine: Engine | None) -> Table:
    """The table with `fold` and the predictions of each row by the model that was tested on it; NULLs where none was."""
    tested = [np.flatnonzero(folds.test[:, part]) for part in range(folds.test.shape[1])]
    fold_of = [int(among[0]) if len(among) else None for among in tested]
    stack = ModelStack.of_models([None if fold is None else found.models[fold] for fold in fold_of])
    fields = prediction_fields(template, found.models[0])
    taken = [name for name in ("fold", *(field.name for field in fields)) if name in rows.column_names]
    if taken:
        raise UnsupportedError(f"Table {rows.name!r} has a column {taken[0]!r} already; rename it in a SELECT.")
    with_part = parted(rows, folds)
    classes = None if template.target != "class" else np.ones((len(fold_of), len(template.classes_)), bool)
    predict = PredictByGroup(
        template,
        stack,
        part_keys(folds),
        classes,
        template.encoding_.for_prediction(),
        pa.schema([*with_part.schema, *fields]),
    )
    schema = pa.schema([*rows.schema, pa.field("fold", pa.int32()), *fields])
    numbers = pa.array([None if fold is None else fold + 1 for fold in fold_of], pa.int32())
    function = _WithFold(predict, numbers, schema)
    name = f"{rows.name} with predictions of its folds"
    return (engine or default_engine()).map_blocks(with_part, function, schema, name=name)


@dataclass(frozen=True)
class _WithFold:
    """Predictions by part, and the number of the fold in place of that of the part."""

    predict: PredictByGroup
    numbers: pa.Array
    schema: pa.Schema

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        made = self.predict(batch)
        fold = self.numbers.take(made.column(PART))
        columns = {name: made.column(name) for name in made.schema.names} | {"fold": fold}
        return pa.record_batch([columns[name] for name in self.schema.names], schema=self.schema)
