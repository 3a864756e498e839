"""One trainer for every group of rows, each trained as a task in a process of its own."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import pyarrow as pa

from braidwater.blocks.base import Array
from braidwater.encoding.encoding import Features
from braidwater.encoding.groups import GroupKeys, find_groups
from braidwater.engines import Engine, default_engine
from braidwater.engines.base import Task
from braidwater.errors import DataError, UnsupportedError
from braidwater.model_selection.group_fit import refuse_keys_as_features
from braidwater.model_selection.rows import shareable
from braidwater.options import current_options
from braidwater.saving import load_model, save_model
from braidwater.tables import Table, table
from braidwater.tables.parts import Parts
from braidwater.tables.split import SampledTable


@dataclass(frozen=True)
class KeyParts(Parts):
    """Every group is a part."""

    keys: GroupKeys
    sizes: Array

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.keys.columns

    def codes(self, batch: pa.RecordBatch | None, first_row: int, rows: int) -> Array:
        assert batch is not None
        return self.keys.codes(batch)

    @property
    def key(self) -> str:
        return f"groups by {', '.join(self.keys.columns)}"


def fit_group_tasks(
    model: Any,
    rows: Table,
    *,
    by: Sequence[str],
    label: str | None,
    features: Features,
    exclude: Sequence[str],
    min_rows: int,
    engine: Engine | None,
) -> GroupedTrainers:
    """Train a copy of `model` for each group; see `fit_groups`. Every task reads the table once, and keeps its group's rows."""
    refuse_keys_as_features(by, features, label)
    groups = find_groups(rows, by)
    chosen = np.flatnonzero(groups.rows >= min_rows).tolist()
    if not chosen:
        raise DataError(f"None of the {len(groups.keys):,} groups by {', '.join(by)} has {min_rows} rows or more.")
    given = {"label": label, "features": features, "exclude": [*exclude, *by]}
    models: dict[int, Any] = {}
    reasons = [f"{count} rows, fewer than {min_rows}" for count in groups.rows.tolist()]
    statuses = ["too small"] * len(groups.keys)
    current_options().cache_directory.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=current_options().cache_directory, prefix="groups-") as folder:
        shared = shareable(rows, Path(folder), engine=engine)
        parts = KeyParts(groups.keys, groups.rows)
        tasks = [
            Task(
                str(code),
                _fit,
                (copy.deepcopy(model), SampledTable(shared, parts, [code], name=f"{rows.name}, group {code}"), given),
            )
            for code in chosen
        ]
        for outcome in (engine or default_engine()).tasks(tasks):
            code = int(outcome.task.name)
            statuses[code], reasons[code] = ("fitted", "") if outcome.error is None else ("failed", str(outcome.error))
            if outcome.error is None:
                models[code] = outcome.value
    if not models:
        raise DataError(f"No group got a model; the first: {reasons[chosen[0]]}")
    columns = {name: groups.keys.column(j) for j, name in enumerate(by)}
    columns |= {"rows": pa.array(groups.rows), "status": pa.array(statuses)}
    columns["reason"] = pa.array([reason or None for reason in reasons], pa.string())
    return GroupedTrainers(groups.keys, models, pa.table(columns))


def _fit(model: Any, rows: Table, given: dict[str, Any]) -> Any:
    return model.fit(rows, **given)


@dataclass
class GroupedTrainers:
    """A fitted trainer for each group: `keys_`, `models` by the places of their keys, `groups_` as of `GroupedModel`."""

    keys_: GroupKeys
    models: dict[int, Any]
    groups_: pa.Table

    kind = "grouped_trainers"

    def model_of(self, key: Any) -> Any:
        """The trainer of a group, by its key: a value, or a tuple of values where there are several columns."""
        place = self.keys_.place(key)
        if place not in self.models:
            raise KeyError(f"Group {key!r} has no model: {self.groups_.column('reason')[place].as_py()}.")
        return self.models[place]

    def predict(self, data: Any, *, engine: Engine | None = None) -> Table:
        """The table with the columns of a prediction, each row by the model of its group; NULLs where it has none.

        Only columns that all models make are there: probabilities of classes that some group does not have are left out.
        """
        rows = table(data)
        rows.require(self.keys_.columns)
        schemas = [model.predict(rows).schema for model in self.models.values()]
        names = [
            f.name for f in schemas[0] if all(f.name in s.names for s in schemas) and f.name not in rows.column_names
        ]
        if not names:
            raise UnsupportedError(
                f"Table {rows.name!r} has the columns of a prediction already; rename them in a SELECT."
            )
        schema = pa.schema([*rows.schema, *(schemas[0].field(name) for name in names)])
        function = _PredictEach(self.models, self.keys_, names, schema)
        return (engine or default_engine()).map_blocks(rows, function, schema, name=f"{rows.name} with {names[0]}")

    def save(self, path: str | Path, *, metrics: Mapping[str, Any] | None = None) -> Path:
        """Write all models below the folder `path`, each into a folder of its own."""
        folder = Path(path)
        figures = self.groups_.drop_columns(list(self.keys_.columns)).to_pydict()
        document = {
            "keys": self.keys_.to_json(),
            "groups": figures,
            "models": sorted(self.models),
            "metrics": dict(metrics or {}),
        }
        for place, model in self.models.items():
            model.save(folder / f"group-{place}")
        return save_model(folder, self.kind, document, {})

    @classmethod
    def load(cls, path: str | Path, **options: Any) -> Self:
        """The models that `save` wrote; `options` go to the ``load`` of each."""
        from braidwater.report import load

        document = load_model(path, cls.kind).document
        keys = GroupKeys.from_json(document["keys"])
        models = {int(place): load(Path(path) / f"group-{place}", **options) for place in document["models"]}
        figures = pa.table(document["groups"])
        columns = {name: keys.column(j) for j, name in enumerate(keys.columns)}
        return cls(keys, models, pa.table(columns | {name: figures.column(name) for name in figures.column_names}))


@dataclass(frozen=True)
class _PredictEach:
    """Hands the rows of each group in a batch to its model."""

    models: dict[int, Any]
    keys: GroupKeys
    names: list[str]
    schema: pa.Schema

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        codes = self.keys.codes(batch)
        source = np.full(batch.num_rows, -1, np.int64)
        parts: list[pa.Table] = []
        begin = 0
        for code in np.unique(codes).tolist():
            if code not in self.models:
                continue
            rows = np.flatnonzero(codes == code)
            part = pa.Table.from_batches([batch.take(pa.array(rows))])
            parts.append(self.models[code].predict(part).to_arrow().select(self.names))
            source[rows] = begin + np.arange(len(rows))
            begin += len(rows)
        fields = [self.schema.field(name) for name in self.names]
        if not parts:
            made = [pa.nulls(batch.num_rows, field.type) for field in fields]
        else:
            whole = pa.concat_tables(parts).combine_chunks()
            index = pa.array(source, mask=source < 0)
            made = [whole.column(field.name).combine_chunks().cast(field.type).take(index) for field in fields]
        return pa.record_batch([*batch.columns, *made], schema=self.schema)
