"""Several trainings of one architecture as one: weights in stacks, a model a layer of the stack, one step for all.

A small net's step is mostly calls (some 0.3 ms whatever its size), so that sixteen nets take little longer than one when
each call works on all of them. `torch.vmap` turns the module's forward pass into one over stacks; the optimiser works on a matrix
``(models, weights)`` with a learning rate, a weight decay and momenta for each row.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.func import functional_call

from braidwater.blocks.mini_batches import MiniBatch
from braidwater.errors import BraidwaterError
from braidwater.events import PassFinished, PassStarted, emit
from braidwater.options import current_options
from braidwater.parallel.base import Data, Replica, Trained, Training
from braidwater.parallel.device import torch_threads
from braidwater.parallel.flat import flatten
from braidwater.parallel.learner import Learner
from braidwater.parallel.loop import mini_batches
from braidwater.parallel.stacked_optimizer import StackedOptimizer, optimizer_of

WORTH_THREADS = 2e8  # operations of a step: a few milliseconds of one core


@dataclass
class _Model:
    """One training in the stack: where it stands, and the figures of its running epoch."""

    number: int
    learner: Learner
    seed_place: int = 0
    loss: float = 0.0
    weight: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, torch.Tensor] | None = None
    best_loss: float = math.inf
    best_epoch: int = 0
    steps: int = 0


class Stack:
    """The weights of several modules of one architecture: a matrix `weights` ``(models, numbers)`` for the optimiser, and for
    the module a tensor ``(models, *shape)`` for each of its parameters."""

    def __init__(self, modules: Sequence[torch.nn.Module]) -> None:
        self._module = copy.deepcopy(modules[0])
        self._shapes = {name: p.shape for name, p in modules[0].named_parameters()}
        self._set(torch.stack([flatten(list(module.parameters())) for module in modules]))

    def _set(self, weights: torch.Tensor) -> None:
        self.weights = weights
        self._parameters = {name: part.clone().requires_grad_() for name, part in self._parts().items()}

    def _parts(self) -> dict[str, torch.Tensor]:
        """Views of the matrix in the shapes of the parameters."""
        sizes = [shape.numel() for shape in self._shapes.values()]
        parts = torch.split(self.weights, sizes, dim=1)
        return {name: part.reshape(-1, *shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}

    def gradients(self) -> torch.Tensor:
        """Those of the last backward pass ``(models, numbers)``; the next one begins from zero."""
        found = []
        for parameter in self._parameters.values():
            found.append(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
            parameter.grad = None
        return torch.cat([gradient.flatten(1) for gradient in found], dim=1)

    def refresh(self) -> None:
        """Hand the matrix, which the optimiser has changed, to the module."""
        with torch.no_grad():
            for name, part in self._parts().items():
                self._parameters[name].copy_(part)

    def keep(self, places: torch.Tensor) -> None:
        """Leave out all models but those at `places`."""
        self._set(self.weights[places].clone())

    def outputs(self, features: torch.Tensor) -> torch.Tensor:
        """What each model says of its rows `features` ``(models, rows, ...)``: ``(models, rows, ...)``."""

        def one(parameters: dict[str, torch.Tensor], inputs: torch.Tensor) -> Any:
            return functional_call(self._module, parameters, (inputs,))

        found: torch.Tensor = torch.vmap(one)(self._parameters, features)
        return found

    def shared(self, rows: torch.Tensor) -> torch.Tensor:
        """The same rows for every model. Copies: products of stacks whose layers are one and the same take half as long again."""
        return rows.expand(len(self.weights), *rows.shape).contiguous()

    def threads(self, rows: int) -> int:
        """How many threads a step on `rows` rows is worth: one, unless it has so much to do that more of them gain."""
        return current_options().workers if 6 * rows * self.weights.numel() >= WORTH_THREADS else 1

    def state(self, place: int) -> dict[str, torch.Tensor]:
        """A copy of the weights of one model."""
        return {name: p.detach()[place].cpu().clone() for name, p in self._parameters.items()}

    def train(self, mode: bool) -> None:
        self._module.train(mode)


def train_stacked(trainings: Sequence[Training], data: Data) -> list[Trained | BraidwaterError]:
    """What each of `trainings` would learn alone on one worker, beyond rounding, in their order; the error of one that failed.

    They must be alike (see `why_apart`). Trainings of one seed see the same mini-batches, which are made once.
    """
    return _StackedLoop(trainings, data).to_the_end()


class _StackedLoop:
    """The steps of all models together; one that is done, or has failed, leaves the stack."""

    def __init__(self, trainings: Sequence[Training], data: Data) -> None:
        self._data = data
        self._found: dict[int, Trained | BraidwaterError] = {}
        first = mini_batches(trainings[0], data, Replica())
        seeds = list(dict.fromkeys(training.seed for training in trainings))
        self._streams = [first.alike(batch_size=first.batch_size, seed=seed) for seed in seeds]
        self._steps = first.steps
        self._models = [
            _Model(number, Learner(training, Replica(), training.epochs * self._steps), seeds.index(training.seed))
            for number, training in enumerate(trainings)
        ]
        self._stack = Stack([model.learner.module for model in self._models])
        self._optimizer: StackedOptimizer = optimizer_of([model.learner.optimizer for model in self._models])
        self._count = len(trainings)

    def to_the_end(self) -> list[Trained | BraidwaterError]:
        epoch = 0
        while self._models:
            with torch_threads(self._stack.threads(self._streams[0].batch_size)):
                self._epoch(epoch)
            epoch += 1
        return [self._found[number] for number in range(self._count)]

    def _epoch(self, epoch: int) -> None:
        begun, cpu = time.perf_counter(), time.process_time()
        rows = self._data.rows.rows
        emit(PassStarted(number=epoch + 1, what="epoch", rows=rows, origin=self._data.rows.kind))
        for model in self._models:
            model.loss = model.weight = 0.0
        for step, batches in enumerate(zip(*(stream.epoch(epoch) for stream in self._streams), strict=True)):
            self._step(batches, epoch * self._steps + step, epoch)
            if not self._models:
                return
        seconds, used = time.perf_counter() - begun, time.process_time() - cpu
        emit(PassFinished(number=epoch + 1, what="epoch", rows=rows, seconds=seconds, cpu_seconds=used))
        self._record(epoch, rows, seconds)

    def _step(self, batches: Sequence[MiniBatch], number: int, epoch: int) -> None:
        learner = self._models[0].learner
        features, target, weights = self._tensors(batches)
        totals = torch.full((len(self._models),), float(batches[0].rows), dtype=learner.dtype)
        if weights is not None:
            totals = weights.sum(1)
        self._stack.train(True)
        losses = self._losses(self._stack.outputs(features), target, weights)
        mean = losses if losses.ndim == 1 else losses.sum(1) / totals
        mean.sum().backward()  # type: ignore[no-untyped-call]
        sums = (mean.detach() * totals).tolist()
        failed = [place for place, value in enumerate(sums) if not math.isfinite(value)]
        for model, value, weight in zip(self._models, sums, totals.tolist(), strict=True):
            model.loss += value
            model.weight += weight
            model.steps += 1
        self._optimizer.step(self._stack.weights, self._stack.gradients(), self._rates(number), self._norms())
        self._stack.refresh()
        for place in failed:
            model = self._models[place]
            self._found[model.number] = model.learner._not_finite(sums[place], batches[model.seed_place], epoch)
        self._leave(failed)

    def _tensors(self, batches: Sequence[MiniBatch]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """The rows of a step ``(models, rows, ...)``, by the seed of each model."""
        made = [self._models[0].learner.tensors(batch) for batch in batches]
        order = [model.seed_place for model in self._models]

        def of_all(parts: list[torch.Tensor]) -> torch.Tensor:
            return self._stack.shared(parts[0]) if len(parts) == 1 else torch.stack([parts[place] for place in order])

        weights = [one[2] for one in made if one[2] is not None]
        return of_all([one[0] for one in made]), of_all([one[1] for one in made]), of_all(weights) if weights else None

    def _losses(self, outputs: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        """Of each model the mean loss of its rows ``(models,)``, or the weighted losses of all ``(models, rows)``."""
        training = self._models[0].learner.training
        mean = getattr(training.loss, "mean_of_rows", None)
        loss = training.loss if mean is None or weights is not None else mean
        if training.target == "number" and outputs.ndim == 3 and outputs.shape[2] == 1:
            outputs = outputs[..., 0]
        found: torch.Tensor = torch.vmap(loss)(outputs, target)
        if found.ndim > 2:
            found = found.flatten(2).mean(2)
        return found if weights is None else found * weights

    def _rates(self, number: int) -> list[float]:
        """The learning rate of each model at a step, by its own schedule."""
        for model in self._models:
            model.learner.set_rates(number)
        return [model.learner.learning_rate for model in self._models]

    def _norms(self) -> list[float] | None:
        norms = [model.learner.training.clip_norm for model in self._models]
        return None if all(norm is None for norm in norms) else [math.inf if n is None else n for n in norms]

    def _record(self, epoch: int, rows: int, seconds: float) -> None:
        """End the epoch of all models: losses, validation, and who is done."""
        figures = self._validated() if self._data.validation is not None else [{} for _ in self._models]
        done = []
        for place, (model, found) in enumerate(zip(self._models, figures, strict=True)):
            record = {"epoch": epoch + 1, "loss": model.loss / model.weight if model.weight else math.nan} | found
            rate = model.learner.learning_rate
            model.history.append(record | {"learning_rate": rate, "rows": rows, "seconds": seconds})
            stops = self._judge(model, place, record.get("validation_loss", record["loss"]), epoch + 1)
            if stops or epoch + 1 >= model.learner.training.epochs:
                weights = self._stack.state(place) if model.best is None else model.best
                best = epoch + 1 if model.best is None else model.best_epoch
                self._found[model.number] = Trained(weights, model.history, model.steps, best)
                done.append(place)
        self._leave(done)

    def _judge(self, model: _Model, place: int, loss: float, epoch: int) -> bool:
        """Early stopping, as in `EpochLoop`."""
        training = model.learner.training
        if training.patience is None:
            return False
        if loss < model.best_loss - training.min_improvement:
            model.best_loss, model.best_epoch, model.best = loss, epoch, self._stack.state(place)
            return False
        return epoch - model.best_epoch >= training.patience

    def _validated(self) -> list[dict[str, float]]:
        """The mean loss and the metrics of each model on the validation rows, which are read once for all."""
        training = self._models[0].learner.training
        batches = mini_batches(training, self._data, Replica(), validation=True)
        metrics = [m.learner.training.metrics() if m.learner.training.metrics else {} for m in self._models]
        total, weight = torch.zeros(len(self._models), dtype=torch.float64), 0.0
        self._stack.train(False)
        with torch.no_grad():
            for batch in batches.epoch(0):
                features, target, weights = self._tensors([batch])
                outputs = self._stack.outputs(features)
                losses = self._losses(outputs, target, weights).double()
                total += losses * batch.rows if losses.ndim == 1 else losses.sum(1)
                weight += float(batch.rows) if weights is None else float(weights[0].sum())
                for place, own in enumerate(metrics):
                    for metric in own.values():
                        metric.update(outputs[place], target[place])
        return [
            {"validation_loss": float(loss) / weight if weight else math.nan}
            | {f"validation_{name}": float(metric.compute()) for name, metric in own.items()}
            for loss, own in zip(total, metrics, strict=True)
        ]

    def _leave(self, places: Sequence[int]) -> None:
        if not places:
            return
        staying = [place for place in range(len(self._models)) if place not in set(places)]
        self._models = [self._models[place] for place in staying]
        if staying:
            index = torch.tensor(staying)
            self._stack.keep(index)
            self._optimizer.keep(index)
