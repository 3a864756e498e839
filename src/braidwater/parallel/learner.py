"""A learner: one worker's module and optimiser, and what it does with a mini-batch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from braidwater.blocks.mini_batches import MiniBatch
from braidwater.errors import LabelError, NumericalError, UnsupportedError
from braidwater.parallel.augmentation import augmented
from braidwater.parallel.base import Replica, Training
from braidwater.parallel.device import device_of
from braidwater.parallel.mixed_precision import HALF, LossScale, autocast, weights_dtype
from braidwater.parallel.optimizer_step import OptimizerStep
from braidwater.parallel.recompute import recompute_layers
from braidwater.parallel.recorded import Recorded, is_plain

_NAMED_ROWS = 20  # of a batch whose loss is not finite, so many are named


@dataclass
class Measured:
    """Sums over rows in evaluation: of their losses, of their weights, and what torchmetrics' `metrics` keep of them."""

    metrics: dict[str, Any]
    total: float = 0.0
    weight: float = 0.0

    def figures(self) -> dict[str, float]:
        """By the names that a record of an epoch has for them."""
        found = {"validation_loss": self.total / self.weight if self.weight else math.nan}
        return found | {f"validation_{name}": float(metric.compute()) for name, metric in self.metrics.items()}


class Learner:
    """A module, its optimiser, and steps over mini-batches. Changes only what it made itself.

    After n steps from the same weights over the same batches its weights are the same bit for bit: the order of additions
    is fixed on one worker.
    """

    def __init__(self, training: Training, replica: Replica, total_steps: int) -> None:
        self.training = training
        self.replica = replica
        self.total_steps = total_steps
        self.dtype = weights_dtype(training.precision)
        self.device = device_of(training.device, replica.rank)
        module = copy.deepcopy(training.module).to(self.device, self.dtype)
        recompute_layers(module, training.recompute)
        self.module = replica.place(module)
        self.module.train()
        self.optimizer = training.optimizer(self.module)
        self.update = OptimizerStep(self.optimizer)
        self._called = replica.wrap(self.module)
        self.scale = LossScale() if training.precision == "fp16" else None
        # of one that goes on with what an earlier training left
        self._first_state = copy.deepcopy(self.optimizer.state_dict()) if self.optimizer.state else {}
        self._rates = [group["lr"] * training.rate_factor for group in self.optimizer.param_groups]
        self._parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self._mean: Callable[[Any, Any], Any] | None = getattr(training.loss, "mean_of_rows", None)
        plain = self._called is self.module and training.precision not in HALF and not training.recompute
        known_loss = type(training.loss).__module__ == "braidwater.deep.losses"
        self._recorded: Recorded | None = None
        if self._mean is not None and plain and known_loss and is_plain(self.module):
            frozen = [parameter for parameter in self.module.parameters() if not parameter.requires_grad]
            self._recorded = Recorded(self._mean_loss, self._parameters, frozen)

    def step(self, batch: MiniBatch, number: int, epoch: int) -> tuple[float, float]:
        """One optimiser step, `number` counting from 0 over all epochs: the sum of the rows' losses, and of their weights."""
        training, replica = self.training, self.replica
        features, target, weights = self.tensors(batch)
        if training.augmentations:
            numbers = batch.numbers if batch.rows else np.zeros(len(features))
            features = augmented(features, training.augmentations, seed=training.seed, epoch=epoch, rows=numbers)
        weight = float(batch.rows) if weights is None else float(weights.sum())
        divisor = replica.divisor(weight, batch, weights is not None)
        self.set_rates(number)
        for parameter in self._parameters:
            parameter.grad = None  # what `zero_grad` does, in a tenth of the time
        total = self.gradients(features, target, weights, divisor, batch)
        if not math.isfinite(total):
            raise self._not_finite(total, batch, epoch)
        if self._unscaled():
            if training.clip_norm is not None:
                replica.clip(self._parameters, training.clip_norm)
            if batch.rows or replica.steps_without_rows:
                self.update()
        replica.stepped(self, weight)
        return total, weight

    def _unscaled(self) -> bool:
        """Take the loss scale out of the gradients; whether the step counts."""
        if self.scale is None:
            return True
        finite = self.replica.agreed(self.scale.unscale(self._parameters))
        self.scale.update(finite)
        return finite

    def gradients(
        self,
        features: torch.Tensor,
        target: torch.Tensor,
        weights: torch.Tensor | None,
        divisor: float,
        batch: MiniBatch,
    ) -> float:
        """Put the gradient of the weighted sum of the rows' losses over `divisor` into the parameters; that sum."""
        plain = weights is None and self.scale is None and self.training.accumulate == 1
        if plain and 0 < batch.rows == divisor and self._mean is not None:
            return self._from_mean(features, target)
        if self.scale is not None:
            divisor /= self.scale.value
        return self._from_rows(features, target, weights, divisor, batch)

    def _from_mean(self, features: torch.Tensor, target: torch.Tensor) -> float:
        """Gradients where every row counts the same: a kernel that gives the mean saves 20 us of what follows below."""
        with self.replica.backward(last=True):
            if self._recorded is not None:
                loss = self._recorded(features, target)
            else:
                loss = self._mean_loss(features, target)
                loss.backward()  # type: ignore[no-untyped-call]
        return loss.item() * len(target)

    def _mean_loss(self, features: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        assert self._mean is not None
        return self._losses(self._mean, self._forward(self._called, features), target, False)

    def _from_rows(
        self,
        features: torch.Tensor,
        target: torch.Tensor,
        weights: torch.Tensor | None,
        divisor: float,
        batch: MiniBatch,
    ) -> float:
        """The same in pieces, with a loss for each row."""
        total = 0.0
        pieces = min(self.training.accumulate, len(features))
        for piece, (inputs, targets, own) in enumerate(_pieces(features, target, weights, pieces)):
            with self.replica.backward(last=piece == pieces - 1):
                output = self._forward(self._called, inputs)
                losses = self._losses(self.training.loss, output, targets, weights is not None)
                # the gradient of the weighted mean, without nodes for its product, sum and division
                torch.autograd.backward(
                    losses, _counts(losses, len(targets), own, 1 / divisor if divisor else 0.0, batch.rows == 0)
                )
            total += _sum(losses.detach(), len(targets), own, batch.rows == 0)
        return total

    def evaluate(self, batches: Iterable[MiniBatch]) -> dict[str, float]:
        """The mean loss over `batches` and the training's metrics, over all workers. Leaves the module as it was."""
        found = self.measure(batches)
        found.total, found.weight = self.replica.sum([found.total, found.weight])
        return found.figures()  # torchmetrics gathers over the process group by itself

    def measure(self, batches: Iterable[MiniBatch], found: Measured | None = None) -> Measured:
        """What this worker finds in `batches`, added to what it has found so far."""
        found = found or Measured(self.training.metrics() if self.training.metrics is not None else {})
        self.module.eval()
        try:
            with torch.no_grad():
                for batch in batches:
                    if not batch.rows and not self.replica.talks_in_forward:
                        continue
                    features, target, weights = self.tensors(batch)
                    output = self.outputs(features)
                    if not batch.rows:
                        continue
                    losses = self._losses(self.training.loss, output, target, weights is not None)
                    found.total += _sum(losses, batch.rows, weights, False)
                    found.weight += float(batch.rows) if weights is None else float(weights.sum())
                    for metric in found.metrics.values():
                        metric.update(output, target)
        finally:
            self.module.train()
        return found

    def outputs(self, features: torch.Tensor) -> torch.Tensor:
        """What the module says of rows, in evaluation. Collective where the module talks in its forward pass."""
        return self._forward(self.module, features)

    def tensors(self, batch: MiniBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Features, target and row weights of a mini-batch."""
        if batch.labels is None:
            raise LabelError("A model cannot be trained without a label. Name its column: fit(table, label=...).")
        target = torch.from_numpy(batch.labels).to(
            self.device, torch.int64 if self.training.target == "class" else self.dtype
        )
        weights = (
            None
            if batch.weights is None
            else torch.from_numpy(np.asarray(batch.weights, np.float64)).to(self.device, self.dtype)
        )
        if weights is not None and not batch.rows:
            weights = torch.zeros_like(weights)
        dtype = self.dtype if self.training.form.pad is None else torch.int64  # sequences are of tokens
        features = features_tensor(batch.features, dtype, self.training.input_scale, self.device)
        return features, target, weights

    def _forward(self, module: torch.nn.Module, features: torch.Tensor) -> torch.Tensor:
        with autocast(self.training.precision, self.device):
            output: torch.Tensor = module(features)
        if self.training.precision in HALF:
            output = output.float()
        if self.training.target == "number" and output.ndim == 2 and output.shape[1] == 1:
            output = output[:, 0]  # (rows, 1) and (rows,) would broadcast to (rows, rows) in the loss
        return output

    def _losses(
        self, loss: Callable[[Any, Any], Any], output: torch.Tensor, target: torch.Tensor, weighted: bool
    ) -> torch.Tensor:
        """The loss of each row, or their mean where the loss gives no more."""
        try:
            losses: torch.Tensor = loss(output, target)
        except IndexError as error:
            if self.training.target == "class" and output.ndim == 2 and int(target.max()) >= output.shape[1]:
                raise LabelError(
                    f"The label has class number {int(target.max())}, but the module has {output.shape[1]} outputs, for the "
                    f"classes 0 to {output.shape[1] - 1}. Give it one output for each class."
                ) from error
            raise
        if losses.ndim == 0 and weighted:
            raise UnsupportedError(
                "Row weights need a loss that gives one number a row; this one gives their mean. Use reduction='none'."
            )
        return losses if losses.ndim < 2 else losses.flatten(1).mean(1)

    def set_rates(self, number: int) -> None:
        """Set the learning rates of step `number`."""
        schedule = self.training.schedule
        factor = 1.0 if schedule is None else schedule(number, self.total_steps)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor

    def _not_finite(self, loss: float, batch: MiniBatch, epoch: int) -> NumericalError:
        numbers = np.sort(batch.numbers)
        named = ", ".join(map(str, numbers[:_NAMED_ROWS].tolist()))
        more = f" and {len(numbers) - _NAMED_ROWS} more" if len(numbers) > _NAMED_ROWS else ""
        worker = f" on worker {self.replica.rank}" if self.replica.size > 1 else ""
        return NumericalError(
            f"The loss became {loss} in step {batch.step + 1} of epoch {epoch + 1}{worker}, over rows {named}{more} "
            "(counted from 0 in the order of the training table). Lower the learning rate, clip gradients (clip_norm=1.0), "
            "standardise the features, or look at these rows."
        )

    def is_finite(self) -> bool:
        """Whether no weight that this worker holds has become an infinity or NaN."""
        return all(bool(torch.isfinite(parameter.detach()).all()) for parameter in self._parameters)

    @property
    def learning_rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the whole module's state (see `Replica.weights`)."""
        return self.replica.weights(self)

    def load(self, weights: dict[str, torch.Tensor], optimizer: dict[str, Any] | None = None) -> None:
        """Take over weights, and the state of an optimiser: None leaves it its own, an empty one lets it begin anew."""
        self.module.load_state_dict(weights)
        if optimizer or (optimizer is not None and self._first_state):
            self.optimizer.load_state_dict(optimizer or copy.deepcopy(self._first_state))
        elif optimizer is not None:
            self.optimizer.state.clear()

    @property
    def operations(self) -> int:
        """Roughly those of this worker's part of a step, were each weight used once for a row: forward, and backward for rows
        and weights."""
        rows = self.training.batch_size // self.replica.data_size
        numbers: int = sum(parameter.numel() for parameter in self._parameters)
        return 6 * rows * numbers

    @property
    def is_plain(self) -> bool:
        """Whether a step follows from the weights, the optimiser and the batch alone: nothing else is remembered of earlier
        ones."""
        return self._recorded is not None


def _pieces(
    features: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None, pieces: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
    if pieces == 1:
        yield features, target, weights
        return
    rows = len(features)
    for piece in range(pieces):
        part = slice(rows * piece // pieces, rows * (piece + 1) // pieces)
        yield features[part], target[part], None if weights is None else weights[part]


def _counts(losses: torch.Tensor, rows: int, weights: torch.Tensor | None, factor: float, idle: bool) -> torch.Tensor:
    """What each of `losses` counts in the loss of a step. A mean over rows (no dimension) stands for all of them."""
    if weights is not None:
        return weights * factor
    return torch.full_like(losses, 0.0 if idle else factor * rows if losses.ndim == 0 else factor)


def _sum(losses: torch.Tensor, rows: int, weights: torch.Tensor | None, idle: bool) -> float:
    """The weighted sum of the rows' losses."""
    if idle:
        return 0.0
    if weights is not None:
        return float(torch.dot(losses, weights))
    return losses.item() * rows if losses.ndim == 0 else losses.sum().item()


def features_tensor(
    features: np.ndarray[Any, Any], dtype: torch.dtype, scale: float = 1.0, device: torch.device | None = None
) -> torch.Tensor:
    """Features as the module gets them: numbers of `dtype` on `device`, multiplied with `scale` (the bytes of images with 1/255).

    Bytes cross to a GPU before they are made wider.
    """
    tensor = torch.from_numpy(features)
    if device is not None and device.type != "cpu":
        tensor = tensor.to(device)
    if tensor.dtype != dtype:  # asking is cheaper than a conversion that changes nothing
        tensor = tensor.to(dtype)
    return tensor if scale == 1.0 else tensor * scale
