"""Trainers that can be stacked: which of them go together, and training those that do."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from braidwater.deep.inputs import InputForm
from braidwater.deep.rows import make_data
from braidwater.encoding import FittedEncoding
from braidwater.engines import Engine, default_engine
from braidwater.errors import BraidwaterError
from braidwater.events import running
from braidwater.model_selection.variants import variant
from braidwater.parallel import Training
from braidwater.parallel.stacked import train_stacked
from braidwater.parallel.stacked_alike import why_alone, why_apart, why_other_outputs
from braidwater.tables import Table


@dataclass
class NetStack:
    """Trainers that are trained as one, by their numbers, with the encoding that they share."""

    encoding: FittedEncoding
    trainers: dict[int, Any] = field(default_factory=dict)
    trainings: dict[int, Training] = field(default_factory=dict)


def stacks_of(
    models: Mapping[int, Any], rows: Table, roles: Mapping[str, Any]
) -> tuple[list[NetStack], dict[int, str], dict[int, Exception]]:
    """Stacks of those that can be stacked; why each of the others is left alone; errors of those that no table fits."""
    stacks: list[NetStack] = []
    reasons: dict[int, str] = {}
    errors: dict[int, Exception] = {}
    known: dict[str, FittedEncoding] = {}
    for number, model in models.items():
        try:
            trainer = variant(model, {})
            encoding, training, shape = _described(trainer, rows, roles, known)
        except BraidwaterError as error:
            errors[number] = error
            continue
        reason = _own_reason(trainer) or why_alone(training)
        if reason:
            reasons[number] = reason
            continue
        refusals = [_refusal(stack, encoding, training, shape) for stack in stacks]
        at = next((place for place, refusal in enumerate(refusals) if not refusal), None)
        if at is None:
            reason = why_other_outputs([training], shape) or _nearest(refusals)
            if reason:
                reasons[number] = reason
            if reason and reason not in refusals:
                continue
            stacks.append(NetStack(encoding))
            at = len(stacks) - 1
        stacks[at].trainers[number], stacks[at].trainings[number] = trainer, training
    return stacks, reasons, errors


def _described(
    trainer: Any, rows: Table, roles: Mapping[str, Any], known: dict[str, FittedEncoding]
) -> tuple[FittedEncoding, Training, tuple[int, ...]]:
    """A trainer's encoding, its training, and the shape of a row. Encodings are looked up in `known`: to fit one takes 0.1 s."""
    key = repr((trainer.nulls, trainer.standardise, trainer.label_kind, trainer.loss))
    if key not in known:
        known[key] = trainer.encode(rows, roles["label"], roles["features"], roles["exclude"], roles["sample_weight"])
    encoding = known[key]
    form, loss = InputForm(encoding, trainer.precision), trainer.loss_of(encoding)
    return encoding, trainer.make_training(trainer.make_module(form, loss), form, loss), form.shape


def _own_reason(trainer: Any) -> str:
    strategy = trainer.strategy if isinstance(trainer.strategy, str) else trainer.strategy.name
    if strategy not in ("auto", "single"):
        return f"it is to be trained with strategy={strategy!r}"
    return "its rows are shuffled on writing" if trainer.shuffle else ""


def _refusal(stack: NetStack, encoding: FittedEncoding, training: Training, shape: tuple[int, ...]) -> str:
    if stack.encoding.key != encoding.key:
        return "it reads the columns otherwise"
    return why_apart(next(iter(stack.trainings.values())), training, shape)


def _nearest(refusals: list[str]) -> str:
    """The refusal of the stack that comes closest; empty where there is no other."""
    far = ("columns", "architecture")
    return max(refusals, key=lambda told: next((k for k, word in enumerate(far) if word in told), len(far)), default="")


def train_stack(
    stack: NetStack, rows: Table, held_out: Table | None, engine: Engine | None
) -> tuple[dict[int, Any], dict[int, Exception]]:
    """The fitted trainers of a stack and the errors of those that failed, by their numbers."""
    longest = max(stack.trainers.values(), key=lambda trainer: trainer.epochs)
    numbers = list(stack.trainers)
    with (
        ExitStack() as opened,
        running(f"{len(numbers)} stacked nets", rows=rows.statistics([]).rows, passes=longest.epochs),
    ):
        data = make_data(longest, rows, held_out, stack.encoding, 1, engine or default_engine(), opened)
        found = train_stacked([stack.trainings[number] for number in numbers], data)
    schema = {field.name: str(field.type) for field in rows.schema}
    models: dict[int, Any] = {}
    errors: dict[int, Exception] = {}
    for number, outcome in zip(numbers, found, strict=True):
        if isinstance(outcome, BraidwaterError):
            errors[number] = outcome
            continue
        trainer = stack.trainers[number]
        training, loss = stack.trainings[number], trainer.loss_of(stack.encoding)
        trainer._take(training.module, stack.encoding, loss, "stacked", outcome)
        trainer.trained_on_ = {"table": rows.name, "rows": rows.statistics([]).rows, "schema": schema}
        models[number] = trainer
    return models, errors
