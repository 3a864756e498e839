"""One model for every group of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from sklearn.base import clone

from braidwater.blocks.base import Array
from braidwater.encoding.encoding import Features, FittedEncoding
from braidwater.encoding.groups import GroupKeys, Groups, find_groups
from braidwater.engines import Engine, default_engine
from braidwater.errors import DataError, ModelSchemaError, OptionError, UnsupportedError
from braidwater.estimators.base import TableEstimator
from braidwater.model_selection.declared import encoding_for
from braidwater.model_selection.group_fit import fit_each_group, group_work, refuse_keys_as_features, too_small
from braidwater.model_selection.group_predictions import PredictByGroup, prediction_fields
from braidwater.model_selection.model_stack import ModelStack
from braidwater.planner import Plan, plan_table
from braidwater.planner.base import Work
from braidwater.saving import load_model, save_model
from braidwater.tables import Table, table

FIGURES = (
    "r2_", "residual_variance_", "log_likelihood_", "inertia_", "n_iter_", "converged_"
)  # fmt: skip


def fit_groups(
    model: Any,
    data: Any,
    *,
    by: str | Sequence[str],
    label: str | None = None,
    features: Features = None,
    exclude: Sequence[str] = (),
    sample_weight: str | None = None,
    min_rows: int | None = None,
    engine: Engine | None = None,
) -> Any:
    """Train one model for each group of rows that agree in the columns `by` (``grouping_cols`` of MADlib).

    `model` is an unfitted estimator, which stays as it is. The columns `by` are no features: left out where features are
    not named, refused where they are. NULLs in them are a group, as in SQL. Encoders (dictionaries, means that stand for
    NULLs) are fitted on the whole table; everything else about a group's model is what a fit of its rows alone gives. Groups
    with fewer rows than `min_rows` (by default: than coefficients, or clusters) or with one class get no model; ``groups_``
    says so. See `GroupedModel` for what comes back.

    Cost: linear regression takes one pass for up to 256 groups. Otherwise the rows are sorted by group while they are read
    (blocks are kept, in memory or on disk), and each pass serves all groups that are not done.

    >>> rows = pa.table({"shop": ["a"] * 3 + ["b"] * 3, "x": [1.0, 2.0, 3.0] * 2, "y": [1.0, 2.0, 3.0, 6.0, 4.0, 2.0]})
    >>> from braidwater.estimators import LinearRegression
    >>> models = fit_groups(LinearRegression(), rows, by="shop", label="y")
    >>> models.model_of("b").coef_.round(6).tolist(), models.groups_.column("status").to_pylist()
    ([-2.0], ['fitted', 'fitted'])
    """
    if not isinstance(model, TableEstimator):
        from braidwater.model_selection.group_tasks import fit_group_tasks

        return fit_group_tasks(
            model, table(data), by=_names(by), label=label, features=features, exclude=exclude, min_rows=min_rows or 2,
            engine=engine,
        )  # fmt: skip
    grouped = GroupedModel(model, by=by, min_rows=min_rows)
    return grouped.fit(
        data, label=label, features=features, exclude=exclude, sample_weight=sample_weight, engine=engine
    )


class GroupedModel:
    """An estimator that has a model for every group.

    `estimator` is what is trained, `by` the columns whose values make the groups, `min_rows` as for `fit_groups`.

    Attributes:
        groups_: a table with a row for each group: the key, `rows`, `status` (``fitted``, ``too small`` or ``failed``), the
            `reason` or what was warned of, and figures of the fit such as `r2`.
        keys_: the keys in the order of that table.
    """

    kind = "grouped"
    plan_: Plan | None = None

    def __init__(self, estimator: TableEstimator, *, by: str | Sequence[str], min_rows: int | None = None) -> None:
        self.estimator = estimator
        self.by = _names(by)
        self.min_rows = min_rows
        if min_rows is not None and min_rows < 1:
            raise OptionError("min_rows", min_rows, "at least 1")

    @property
    def target(self) -> str:
        """What the estimator learns."""
        return self.estimator.target

    def fit(
        self,
        data: Any,
        *,
        label: str | None = None,
        features: Features = None,
        exclude: Sequence[str] = (),
        sample_weight: str | None = None,
        engine: Engine | None = None,
    ) -> Self:
        """Train on a table; see `fit_groups`."""
        rows = table(data)
        rows.require(self.by)
        refuse_keys_as_features(self.by, features, label)
        template: Any = clone(self.estimator)
        training = template._open(
            rows, None, features=features, label=label, exclude=[*exclude, *self.by], sample_weight=sample_weight,
            offset=None, engine=engine,
        )  # fmt: skip
        classes = training.encoding.classes
        groups = find_groups(rows, self.by, label if template.target == "class" else None, classes or ())
        refused = too_small(template, training, groups, self.min_rows)
        if len(refused) == len(groups.keys):
            code, reason = next(iter(refused.items()))
            raise DataError(
                f"None of the {len(groups.keys):,} groups by {', '.join(self.by)} can be learnt from; "
                f"{_shown(groups.keys.keys[code])} has {reason}. Group by something coarser, or give min_rows."
            )
        found = fit_each_group(template, training, groups, refused, engine)
        if not found.models.present.any():
            raise DataError(f"No group got a model; {_shown(groups.keys.keys[0])}: {found.reasons[0]}")
        if classes is not None:
            template.classes_ = training.classes
        self._take(template, groups, found.models)
        self.plan_ = found.plan
        self.groups_ = self._group_table(groups, found.reasons, found.warnings, set(refused))
        return self

    def encode(
        self, rows: Table, label: str | None, features: Features = None, exclude: Sequence[str] = ()
    ) -> FittedEncoding:
        """The encoding of the features and the label, fitted on `rows`."""
        refuse_keys_as_features(self.by, features, label)
        return encoding_for(self.estimator, rows, label, features, [*exclude, *self.by])

    def explain(
        self,
        data: Any,
        *,
        label: str | None = None,
        features: Features = None,
        exclude: Sequence[str] = (),
        **wishes: Any,
    ) -> Plan:
        """What `fit` would do, and its cost. The groups are counted by a query, nothing is trained."""
        rows = table(data)
        return plan_table(rows, self.work(rows, self.encode(rows, label, features, exclude)), **wishes)

    def work(self, rows: Table, encoding: FittedEncoding) -> Work:
        """The training as the planner sees it: passes, and a state for every group (they are counted by a query)."""
        groups = find_groups(rows, self.by)
        return group_work(self.estimator, self.estimator.work(rows, encoding), encoding.design, len(groups.keys))

    def model_of(self, key: Any) -> Any:
        """The fitted estimator of a group, by its key: a value, or a tuple of values where `by` has several columns."""
        return self._model(self.keys_.place(key), details=True)

    def predict(self, data: Any, *, engine: Engine | None = None) -> Table:
        """The table with the prediction columns of the estimator, each row by the model of its group.

        Rows whose group has no model get NULLs; `without_model` counts them.
        """
        rows = table(data)
        template: Any = self._template
        encoding = template.encoding_.for_prediction()
        rows.require([*encoding.columns, *self.by])
        fields = prediction_fields(template, self._model(int(np.flatnonzero(self._stack.present)[0])))
        taken = [field.name for field in fields if field.name in rows.column_names]
        if taken:
            raise UnsupportedError(f"Table {rows.name!r} has a column {taken[0]!r} already; rename it in a SELECT.")
        schema = pa.schema([*rows.schema, *fields])
        function = PredictByGroup(template, self._stack, self.keys_, self._classes, encoding, schema)
        name = f"{rows.name} with {fields[0].name}"
        return (engine or default_engine()).map_blocks(rows, function, schema, name=name)

    def without_model(self, data: Any) -> pa.Table:
        """The groups of a table that have no model, with their rows; one query."""
        found = find_groups(table(data), self.by)
        known = set(np.flatnonzero(self._stack.present).tolist())
        places = {key: code for code, key in enumerate(self.keys_.keys)}
        lost = [i for i, key in enumerate(found.keys.keys) if places.get(key) not in known]
        columns = {name: found.keys.column(j).take(pa.array(lost, pa.int64())) for j, name in enumerate(self.by)}
        return pa.table(columns | {"rows": pa.array(found.rows[lost], pa.int64())})

    def summary(self) -> pa.Table:
        """The coefficients of all models, a row each: key, `term`, `coefficient`, `standard_error`, `statistic`, `p_value`."""
        return self._summary

    @cached_property
    def _summary(self) -> pa.Table:
        if not hasattr(type(self._template), "coefficients_"):
            kind = type(self._template).__name__
            raise UnsupportedError(f"A {kind} has no coefficients; see model_of(key) and groups_.")
        codes: list[int] = []
        names: list[str] = []
        figures: dict[str, list[Array]] = {
            name: [] for name in ("coefficient", "standard_error", "statistic", "p_value")
        }
        for code in np.flatnonzero(self._stack.present).tolist():
            found = self._model(code).coefficients_
            codes += [code] * len(found.names)
            names += found.names
            for name, parts in figures.items():
                parts.append(getattr(found, name))
        columns = {name: self.keys_.column(j).take(pa.array(codes)) for j, name in enumerate(self.by)}
        columns["term"] = pa.array(names)
        return pa.table(columns | {name: pa.array(np.concatenate(parts)) for name, parts in figures.items()})

    def save(self, path: str | Path, *, metrics: Mapping[str, Any] | None = None) -> Path:
        """Write all models into the folder `path` (safetensors and JSON); `load` reads them back."""
        template: Any = self._template
        document, arrays = self._stack.to_saved()
        shared, _ = template.to_saved()
        document |= {
            "template": shared,
            "estimator": template.kind,
            "keys": self.keys_.to_json(),
            "min_rows": self.min_rows,
            "groups": self.groups_.drop_columns(list(self.by)).to_pydict(),
            "plan": None if self.plan_ is None else self.plan_.to_json(),
            "metrics": dict(metrics or {}),
        }
        arrays = {f"model.{name}": values for name, values in arrays.items()}
        if self._classes is not None:
            arrays["classes"] = self._classes
        return save_model(path, self.kind, document, arrays)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The models that `save` wrote into the folder `path`."""
        from braidwater import estimators

        saved = load_model(path, cls.kind)
        document = saved.document
        kinds: dict[str, Any] = {
            kind.kind: kind for kind in (getattr(estimators, n) for n in estimators.__all__) if hasattr(kind, "kind")
        }
        if document["estimator"] not in kinds:
            raise ModelSchemaError(
                f"The models in {str(path)!r} are of kind {document['estimator']!r}, which this version does not know."
            )
        template = kinds[document["estimator"]].from_saved(document["template"], {})
        keys = GroupKeys.from_json(document["keys"])
        own = {name.removeprefix("model."): a for name, a in saved.arrays.items() if name.startswith("model.")}
        grouped = cls(template, by=keys.columns, min_rows=document["min_rows"])
        grouped.keys_ = keys
        grouped._template = template
        grouped._stack = ModelStack.from_saved(document, own)
        grouped._classes = saved.arrays.get("classes")
        figures = pa.table(document["groups"])
        columns = {name: keys.column(j) for j, name in enumerate(keys.columns)}
        grouped.groups_ = pa.table(columns | {name: figures.column(name) for name in figures.column_names})
        return grouped

    def _take(self, template: TableEstimator, groups: Groups, models: ModelStack) -> None:
        self.keys_ = groups.keys
        self._template = template
        self._stack = models
        self._classes: Array | None = None if groups.classes is None else groups.classes > 0
        self.__dict__.pop("_summary", None)

    def _model(self, code: int, *, details: bool = False) -> Any:
        if not self._stack.present[code]:
            status = self.groups_.column("reason")[code].as_py()
            raise KeyError(f"Group {_shown(self.keys_.keys[code])} has no model: {status}.")
        model = self._stack.model(code, self._template, details=details)
        if self._classes is not None:
            model.classes_ = self._template.classes_[self._classes[code]]
        return model

    def _group_table(self, groups: Groups, reasons: list[str], warnings: list[str], refused: set[int]) -> pa.Table:
        present = self._stack.present
        columns = {name: groups.keys.column(j) for j, name in enumerate(self.by)}
        columns["rows"] = pa.array(groups.rows)
        columns["status"] = pa.array(
            ["fitted" if there else "too small" if code in refused else "failed" for code, there in enumerate(present)]
        )
        columns["reason"] = pa.array(
            [reason or warning or None for reason, warning in zip(reasons, warnings, strict=True)], pa.string()
        )
        for name in FIGURES:
            if name in self._stack.arrays:
                columns[name.rstrip("_")] = pa.array(self._stack.arrays[name], mask=~present)
        return pa.table(columns)


def _names(by: str | Sequence[str]) -> tuple[str, ...]:
    names = (by,) if isinstance(by, str) else tuple(by)
    if not names or len(set(names)) < len(names):
        raise OptionError("by", by, "one or more columns, each once")
    return names


def _shown(key: tuple[Any, ...]) -> str:
    return repr(key[0]) if len(key) == 1 else repr(key)
