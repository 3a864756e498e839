"""Threshold encoding: only gradients that have grown large are sent, as one bit and their place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.distributed as dist

from braidwater.errors import OptionError
from braidwater.parallel.compression.base import Compression, Exchange, done
from braidwater.parallel.compression.residuals import Residuals

if TYPE_CHECKING:
    from torch._C._distributed_c10d import GradBucket

_SIGN = -(2**31)  # the top bit of an int32
_PACE = 0.5  # the threshold goes with the square root of how far the share sent is from its target: in a step
_RISE = 2.0  # up to twice as high,
_FALL = 0.96  # and slowly down, for just below it lies all that earlier steps have kept back


@dataclass(frozen=True)
class Threshold(Compression):
    """Send ``+threshold`` or ``-threshold`` for each number whose sum over the steps has come to exceed it; keep the rest.

    Strom 2015 ("Scalable distributed DNN training using commodity GPU cloud computing"): each worker adds its gradient to
    its residual r, sends the place of every \\|r\\| > threshold with its sign in the top bit (4 bytes), takes what it sent
    out of r, and adds up what all have sent.

    `threshold` is what training begins with. Where `target_sparsity` is a share of the parameters (0.01: each worker sends
    1 % of them in a step), the threshold follows it from step to step, alike on all workers, as in Deeplearning4j's shared
    training; None keeps it as it is. Bytes of a step: 4 for each number sent by the worker that sends most, and 8.
    """

    name: ClassVar[str] = "threshold"
    keeps_residual: ClassVar[bool] = True
    threshold: float = 1e-3
    target_sparsity: float | None = 0.01

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise OptionError("threshold", self.threshold, "above 0")
        if self.target_sparsity is not None and not 0 < self.target_sparsity < 1:
            raise OptionError("target_sparsity", self.target_sparsity, "None, or a share between 0 and 1")

    def exchange(self, module: torch.nn.Module) -> Exchange:
        return _ThresholdExchange(self, module)


class _ThresholdExchange(Exchange):
    def __init__(self, options: Threshold, module: torch.nn.Module) -> None:
        self._target = options.target_sparsity
        self._threshold = options.threshold
        self._residuals = Residuals(module)
        self._size = dist.get_world_size()
        self._sent = self._possible = 0  # by all workers in this step

    def __call__(self, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        gradient, residual = bucket.buffer(), self._residuals.of(bucket)
        residual.add_(gradient, alpha=1 / self._size)
        messages = self._gathered(encode(residual, self._threshold))
        gradient.zero_()
        for message in messages:
            decode_into(gradient, message, self._threshold)
        self._sent += sum(map(len, messages))
        self._possible += self._size * len(gradient)
        if bucket.is_last():
            self._adapt()
        return done(bucket)

    def _gathered(self, message: torch.Tensor) -> list[torch.Tensor]:
        """The messages of all workers, in order of rank."""
        lengths = [int(length) for length in _gathered(torch.tensor([len(message)]), self._size)]
        most = max(lengths)
        self.bytes += 8 + most * message.element_size()
        if not most:
            return [message] * self._size
        padded = torch.zeros(most, dtype=message.dtype)
        padded[: len(message)] = message
        return [part[:length] for part, length in zip(_gathered(padded, self._size), lengths, strict=True)]

    def _adapt(self) -> None:
        if self._target is not None:
            factor = (self._sent / self._possible / self._target) ** _PACE
            self._threshold *= min(max(factor, _FALL), _RISE)
        self._sent = self._possible = 0

    def state(self) -> Any:
        return {"threshold": self._threshold, "residuals": self._residuals.state()}

    def load_state(self, state: Any) -> None:
        self._threshold = state["threshold"]
        self._residuals.load_state(state["residuals"])


def _gathered(tensor: torch.Tensor, size: int) -> list[torch.Tensor]:
    """The tensors of all workers, of equal length, in order of rank."""
    found = [torch.empty_like(tensor) for _ in range(size)]
    dist.all_gather(found, tensor)
    return found


def encode(residual: torch.Tensor, threshold: float) -> torch.Tensor:
    """The places where a flat `residual` exceeds `threshold`, negative ones with the top bit set (int32). Takes them out of it.

    >>> residual = torch.tensor([0.5, -3.0, 0.0, 1.5])
    >>> encode(residual, 1.0), residual
    (tensor([-2147483647,           3], dtype=torch.int32), tensor([ 0.5000, -2.0000,  0.0000,  0.5000]))
    """
    places = (residual.abs() > threshold).nonzero()[:, 0]
    values = residual[places]
    negative = values < 0
    residual[places] = values - torch.where(negative, -threshold, threshold).to(values.dtype)
    return torch.where(negative, places + _SIGN, places).to(torch.int32)


def decode_into(total: torch.Tensor, message: torch.Tensor, threshold: float) -> None:
    """Add what `encode` wrote to the flat `total`.

    >>> total = torch.zeros(4)
    >>> decode_into(total, torch.tensor([1 - 2**31, 3], dtype=torch.int32), 1.0)
    >>> total
    tensor([ 0., -1.,  0.,  1.])
    """
    negative = message < 0
    places = torch.where(negative, message - _SIGN, message)
    total.index_add_(0, places, torch.where(negative, -threshold, threshold).to(total.dtype))
