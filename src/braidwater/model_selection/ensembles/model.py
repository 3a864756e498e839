"""An ensemble of fitted models: predicts as a table, saved as one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import pyarrow as pa

from braidwater.blocks import BlockSource
from braidwater.blocks.base import Array
from braidwater.encoding import Encoding, Numeric
from braidwater.engines import Engine, default_engine
from braidwater.errors import EmptyTableError, OptionError, UnsupportedError
from braidwater.metrics import ClassEvaluation, NumberEvaluation
from braidwater.model_selection.ensembles.members import Members
from braidwater.saving import load_model, save_model
from braidwater.tables import Table, table

Combine = Literal["greedy", "mean", "vote", "stacking"]
COMBINATIONS: tuple[str, ...] = get_args(Combine)

_TIE = 1e-3  # of a vote: what the mean probability adds, which decides between equal counts


class TrialEnsemble:
    """Several fitted models whose answers are combined.

    - ``"mean"`` and ``"greedy"``: the mean of the members' probabilities (or numbers), each weighted with its share in `weights`;
    - ``"vote"``: the share of members that choose a class; the mean probability decides between equals;
    - ``"stacking"``: `stacker`, a regression on the logarithms of the members' probabilities (or their numbers; Wolpert 1992).

    A row without an answer of some member (a NULL that its policy leaves out) has none of the ensemble. `trials` are the
    numbers of the members in their study; `costs` what greedy selection made small, after each model that it took.
    """

    kind = "trial_ensemble"

    def __init__(
        self,
        models: Sequence[Any],
        weights: Sequence[float],
        combine: Combine,
        *,
        label: str,
        trials: Sequence[int] = (),
        stacker: Any = None,
        costs: Sequence[float] = (),
    ) -> None:
        if combine not in COMBINATIONS:
            raise OptionError("combine", combine, f"one of {', '.join(COMBINATIONS)}")
        self.members = Members.of(models)
        if combine == "vote" and self.members.classes is None:
            raise OptionError("combine", "vote", "greedy, mean or stacking where the label is a number")
        self.weights = np.asarray(weights, np.float64) / np.sum(weights)
        self.combine: Combine = combine
        self.label = label
        self.trials = list(trials)
        self.stacker = stacker
        self.costs = list(costs)

    @property
    def classes_(self) -> list[Any] | None:
        """The classes in the order of their probabilities; None where the label is a number."""
        return self.members.classes

    @property
    def target(self) -> str:
        return "number" if self.classes_ is None else "class"

    def combined(self, outputs: Array) -> Array:
        """The ensemble's answer ``(rows, classes)`` or ``(rows,)`` for those of its members ``(models, rows, ...)``."""
        missing = np.isnan(outputs.sum(0))
        if self.combine == "stacking":
            found = self._stacked(np.nan_to_num(outputs))
        else:
            found = np.tensordot(self.weights, outputs, 1)
            if self.combine == "vote":
                votes = np.eye(outputs.shape[2])[outputs.argmax(2)].mean(0)
                found = (votes + _TIE * found) / (1 + _TIE)
        return np.where(missing, np.nan, found)

    def _stacked(self, outputs: Array) -> Array:
        features = stacking_features(outputs, self.classes_ is not None)
        return np.asarray(
            self.stacker.predict(features) if self.classes_ is None else self.stacker.predict_proba(features)
        )

    def predict(self, data: Any, *, engine: Engine | None = None) -> Table:
        """The table with a column ``prediction`` (and ``probability_<class>`` for each class), computed while it is read."""
        rows = table(data)
        fields = [pa.field("prediction", pa.float64() if self.classes_ is None else pa.array(self.classes_).type)]
        if self.classes_ is not None:
            fields += [pa.field(name, pa.float64()) for name in self.members.names]
        taken = [field.name for field in fields if field.name in rows.column_names]
        if taken:
            raise UnsupportedError(f"Table {rows.name!r} has a column {taken[0]!r} already; rename it in a SELECT.")
        for model in self.members.models:
            model.predict(rows)  # lazy: looks for the columns that it needs
        schema = pa.schema([*rows.schema, *fields])
        name = f"{rows.name} with prediction"
        return (engine or default_engine()).map_blocks(rows, _Combine(self, schema), schema, name=name)

    def evaluate(self, data: Any, *, label: str | None = None, engine: Engine | None = None) -> dict[str, Any]:
        """How good the predictions are, as `evaluate` of any model tells it. One pass; rows without an answer are left out."""
        label = label or self.label
        rows = table(data)
        rows.require([label])
        if not rows.statistics([]).rows:
            raise EmptyTableError(f"Table {rows.name!r} has no rows to evaluate.")
        engine = engine or default_engine()
        made = self.predict(rows, engine=engine)
        kind: Any = self.target
        features = {name: Numeric(nulls="drop") for name in self.members.names}
        encoding = Encoding(features=features, label=label, label_kind=kind).fit(made)
        if self.classes_ is not None:
            encoding = replace(encoding, label=replace(encoding.label, classes=tuple(self.classes_)))  # type: ignore[type-var]
        encoding = encoding.for_evaluation()
        with BlockSource(made, encoding) as source:
            if self.classes_ is None:
                return engine.aggregate(source, NumberEvaluation(encoding.design, _only))
            return engine.aggregate(source, ClassEvaluation(encoding.design, np.asarray, len(self.classes_)))

    def save(self, path: str | Path, *, metrics: Mapping[str, Any] | None = None) -> Path:
        """Write the ensemble into the folder `path`, each member into a folder below it."""
        folder = Path(path)
        for place, model in enumerate(self.members.models):
            model.save(folder / f"member-{place}")
        if self.stacker is not None:
            self.stacker.save(folder / "stacker")
        document = {
            "combine": self.combine,
            "label": self.label,
            "trials": self.trials,
            "costs": self.costs,
            "members": len(self.members.models),
            "metrics": dict(metrics or {}),
        }
        return save_model(folder, self.kind, document, {"weights": self.weights})

    @classmethod
    def load(cls, path: str | Path, **options: Any) -> Self:
        """The ensemble that `save` wrote; `options` (``trust``, ``module``) go to the ``load`` of members that are nets."""
        from braidwater.report import load

        saved = load_model(path, cls.kind)
        document, folder = saved.document, Path(path)
        places = [folder / f"member-{place}" for place in range(document["members"])]
        models = [load(place, **(options if load_model(place).kind in _NETS else {})) for place in places]
        stacker = load(folder / "stacker") if document["combine"] == "stacking" else None
        return cls(
            models,
            saved.arrays["weights"].tolist(),
            document["combine"],
            label=document["label"],
            trials=document["trials"],
            stacker=stacker,
            costs=document["costs"],
        )

    def __repr__(self) -> str:
        return f"<ensemble ({self.combine}) of {len(self.members.models)} models of {self.label!r}>"


_NETS = ("trainer", "mlp", "cnn")


def stacking_features(outputs: Array, classes: bool) -> Array:
    """What a stacker sees: ``(rows, models * classes)`` logarithms of probabilities, or ``(rows, models)`` numbers."""
    if not classes:
        return np.ascontiguousarray(outputs.T)
    logs = np.log(np.clip(outputs, 1e-6, 1.0))  # a probability of zero would outweigh all others
    return np.ascontiguousarray(logs.transpose(1, 0, 2).reshape(outputs.shape[1], -1))


def _only(features: Array) -> Array:
    return features[:, 0]


@dataclass(frozen=True)
class _Combine:
    """Appends the ensemble's answer to a batch."""

    ensemble: TrialEnsemble
    schema: pa.Schema

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        members = self.ensemble.members
        found = self.ensemble.combined(members.outputs(batch))
        if members.classes is None:
            return pa.record_batch([*batch.columns, pa.array(found, from_pandas=True)], schema=self.schema)
        missing = np.isnan(found[:, 0])
        chosen = pa.array(np.where(missing, 0.0, found.T).argmax(0), mask=missing)
        prediction = pa.array(members.classes, self.schema.field("prediction").type).take(chosen)
        columns = [pa.array(column, from_pandas=True) for column in np.ascontiguousarray(found.T)]
        return pa.record_batch([*batch.columns, prediction, *columns], schema=self.schema)
