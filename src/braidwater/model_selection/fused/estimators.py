"""Estimators whose passes can be shared: which of them go together, and training those that do."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sklearn.base import clone

from braidwater.blocks import BlockSource
from braidwater.encoding import FittedEncoding
from braidwater.encoding.base import FittedColumn
from braidwater.encoding.encoding import Features
from braidwater.engines import Engine, LocalEngine
from braidwater.errors import BraidwaterError
from braidwater.estimators.base import Training
from braidwater.events import Planned, emit, running
from braidwater.model_selection.fused.lens import Lens, by_single_columns
from braidwater.model_selection.fused.lockstep import Fused
from braidwater.model_selection.side_by_side import iteration_of
from braidwater.planner import Plan, plan_table
from braidwater.planner.base import Work
from braidwater.tables import Table


@dataclass
class Scan:
    """Estimators that are trained by one sequence of passes: their opened templates and trainings, by their numbers.

    `features` are the columns of all of them together, `label` and `weight` what they have in common.
    """

    label: FittedColumn | None
    weight: FittedColumn | None
    offset: FittedColumn | None
    features: dict[str, FittedColumn] = field(default_factory=dict)
    templates: dict[int, Any] = field(default_factory=dict)
    trainings: dict[int, Training] = field(default_factory=dict)

    @property
    def encoding(self) -> FittedEncoding:
        """Of the columns of all models."""
        return FittedEncoding(tuple(self.features.values()), self.label, self.weight, self.offset)

    def refuses(self, encoding: FittedEncoding) -> str:
        """Why a model with this encoding cannot go with the others; empty where it can."""
        if _json(encoding.weight) != _json(self.weight) or _json(encoding.offset) != _json(self.offset):
            return "it weighs rows otherwise"
        if self.label is not None and encoding.label is not None and _json(encoding.label) != _json(self.label):
            return "its label is another, or read otherwise"
        own = {column.column: column for column in encoding.features}
        for name, column in own.items():
            if name in self.features and _json(self.features[name]) != _json(column):
                return f"it reads column {name!r} otherwise"
        dropping = [c for c in (*own.values(), *self.features.values()) if '"drop"' in json.dumps(c.to_json())]
        if dropping and set(own) != set(self.features):
            return f"rows with a NULL in {dropping[0].column!r} are left out for some models only"
        return ""

    def add(self, number: int, template: Any, training: Training) -> None:
        assert training.encoding is not None
        self.label = self.label or training.encoding.label
        self.features |= {column.column: column for column in training.encoding.features}
        self.templates[number], self.trainings[number] = template, training

    def work(self, rows: Table) -> Work:
        """The passes of all, as the planner sees them: as many as those of the longest, each with everybody's operations."""
        encoding = self.encoding
        own = [self.templates[n].work(rows, t.encoding) for n, t in self.trainings.items()]
        passes = max(work.passes for work in own)
        longest = max(own, key=lambda work: work.flops_per_row * work.passes)
        merged: Work = replace(
            longest,
            name=_name([template.kind for template in self.templates.values()]),
            passes=passes,
            flops_per_row=sum(work.flops_per_row * work.passes for work in own) / passes,
            row_bytes=encoding.block_schema.row_bytes,
            read_columns=tuple(encoding.columns),
            state_bytes=sum(work.state_bytes for work in own),
            models=sum(work.models for work in own),
        )
        return merged


def opened(
    model: Any, rows: Table, roles: Mapping[str, Any], features: Features, engine: Engine | None
) -> tuple[Any, Training]:
    """A copy of an estimator that knows the table, and what it would train on."""
    template = clone(model)
    training: Training = template._open(
        rows, None, features=features, label=roles["label"], exclude=roles["exclude"],
        sample_weight=roles["sample_weight"], offset=None, engine=engine,
    )  # fmt: skip
    return template, training


def scans_of(found: Mapping[int, tuple[Any, Training]]) -> tuple[list[Scan], dict[int, str]]:
    """As few scans as serve all of these estimators, and why a model begins one of its own where there were others."""
    scans: list[Scan] = []
    reasons: dict[int, str] = {}
    for number, (template, training) in found.items():
        encoding = training.encoding
        assert encoding is not None
        if getattr(template, "solver", None) == "sgd":
            scans.append(Scan(encoding.label, encoding.weight, encoding.offset))
            scans[-1].add(number, template, training)
            reasons[number] = "averaged SGD goes through the rows by itself"
            continue
        refusals = [_refusal(scan, encoding) for scan in scans]
        at = next((place for place, refusal in enumerate(refusals) if not refusal), None)
        if at is None:
            if refusals:
                reasons[number] = refusals[0]
            scans.append(Scan(encoding.label, encoding.weight, encoding.offset))
            at = len(scans) - 1
        scans[at].add(number, template, training)
    return scans, reasons


def _refusal(scan: Scan, encoding: FittedEncoding) -> str:
    if any(getattr(template, "solver", None) == "sgd" for template in scan.templates.values()):
        return "averaged SGD goes through the rows by itself"
    return scan.refuses(encoding)


def train_scan(scan: Scan, rows: Table, engine: Engine | None) -> tuple[dict[int, Any], dict[int, Exception], Plan]:
    """The fitted models of a scan and the errors of those that failed, by their numbers."""
    encoding, design = scan.encoding, scan.encoding.design
    trainings = {n: over(training, encoding) for n, training in scan.trainings.items()}
    iterations: dict[int, Any] = {}
    errors: dict[int, Exception] = {}
    for number, training in trainings.items():
        try:
            iterations[number] = iteration_of(copy.copy(scan.templates[number]), training)
        except BraidwaterError as error:
            errors[number] = error
    lenses = {number: Lens.of(trainings[number].design, design) for number in iterations}
    work = scan.work(rows)
    plan = plan_table(rows, work, workers=None if engine is None else engine.workers)
    emit(Planned(text=str(plan)))
    engine = engine or LocalEngine(plan.chosen.workers)
    with (
        running(work.name, rows=rows.statistics([]).rows, passes=work.passes),
        BlockSource(rows, encoding, passes=work.passes, cache=plan.chosen.cache) as source,
        plan.measuring(),
    ):
        trained = engine.iterate(source, Fused(iterations, lenses, design)) if iterations else {}
    models = {}
    for number, outcome in trained.items():
        if outcome.error is not None:
            errors[number] = outcome.error
            continue
        try:
            models[number] = _finished(scan.templates[number], scan.trainings[number], outcome.result)
        except BraidwaterError as error:
            errors[number] = error
            continue
        models[number].plan_ = plan
    return models, errors, plan


def over(training: Training, common: FittedEncoding) -> Training:
    """The same training over the blocks that all share."""
    whole = training.design.names == common.design.names
    return replace(training, design=common.design if whole else by_single_columns(training.design))


def _finished(template: Any, training: Training, result: Any) -> Any:
    """The model as its own fit would have left it, warnings included."""
    model = copy.copy(template)
    model.fit(replace(training, run=lambda iteration: result))
    return model


def _json(column: FittedColumn | None) -> Any:
    return None if column is None else column.to_json()


def _name(kinds: Sequence[str]) -> str:
    return ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))
