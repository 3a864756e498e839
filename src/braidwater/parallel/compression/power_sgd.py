"""PowerSGD: the gradient of a matrix as the product of two thin ones."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.distributed as dist

from braidwater.errors import OptionError
from braidwater.parallel.compression.base import Compression, Exchange, done

if TYPE_CHECKING:
    from torch._C._distributed_c10d import GradBucket


@dataclass(frozen=True)
class PowerSGD(Compression):
    """Send a gradient of n x m numbers as n x `rank` and m x `rank`; what that leaves out is added to the next step's.

    Vogels, Karimireddy and Jaggi 2019 ("PowerSGD: Practical Low-Rank Gradient Compression", arXiv 1905.13727), algorithm
    1 with warm start and error feedback: P = M Q, its mean made orthonormal, Q = M' P, its mean; every step goes on from
    the last one's Q, so that they run after the leading singular vectors. Parameters without a second dimension, and those
    that would not become smaller, are sent as they are. Steps before `start_step` are not compressed: the first gradients
    point elsewhere than those that follow. Convolutions count as out x (in * height * width).

    torch's own hook (`powerSGD_hook`) computes the same and keeps its state by bucket. DistributedDataParallel fills its
    buckets anew after the first step, so that a training could not go on from a checkpoint of it; this one keeps it by
    parameter.
    """

    name: ClassVar[str] = "power_sgd"
    keeps_residual: ClassVar[bool] = True
    rank: int = 1
    start_step: int = 0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise OptionError("rank", self.rank, "at least 1")
        if self.start_step < 0:
            raise OptionError("start_step", self.start_step, "0 or more")

    def exchange(self, module: torch.nn.Module) -> Exchange:
        return _PowerExchange(self, module)


class _PowerExchange(Exchange):
    def __init__(self, options: PowerSGD, module: torch.nn.Module) -> None:
        self._rank = options.rank
        self._start = options.start_step
        self._step = 0
        self._names = {id(parameter): name for name, parameter in module.named_parameters()}
        self._second: dict[str, torch.Tensor] = {}  # Q of each matrix
        self._residuals: dict[str, torch.Tensor] = {}
        self._size = dist.get_world_size()

    def __call__(self, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        if self._step < self._start:
            self._average([bucket.buffer()])
        else:
            self._compress(bucket)
        self._step += bucket.is_last()
        return done(bucket)

    def _compress(self, bucket: GradBucket) -> None:
        gradients = dict(zip([self._names[id(p)] for p in bucket.parameters()], bucket.gradients(), strict=True))
        # in memory of their own: products of numbers that lie elsewhere in a bucket may differ in the last bit
        thin = {name: self._with_residual(name, g) for name, g in gradients.items() if self._gets_smaller(g)}
        whole = [gradient for name, gradient in gradients.items() if name not in thin]
        first = {name: matrix @ self._second_of(name, matrix) for name, matrix in thin.items()}
        self._average([*first.values(), *whole])
        for name, matrix in thin.items():
            first[name], _ = torch.linalg.qr(first[name])
            self._second[name] = matrix.T @ first[name]
        self._average([self._second[name] for name in thin])
        for name, matrix in thin.items():
            approximation = first[name] @ self._second[name].T
            self._residuals[name] = matrix - approximation
            gradients[name].copy_(approximation.view_as(gradients[name]))

    def _with_residual(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        matrix = gradient.flatten(1)
        return matrix + self._residuals[name] if name in self._residuals else matrix.clone()

    def _gets_smaller(self, gradient: torch.Tensor) -> bool:
        if gradient.ndim < 2:
            return False
        rows, columns = len(gradient), gradient[0].numel()
        return self._rank * (rows + columns) < rows * columns

    def _second_of(self, name: str, matrix: torch.Tensor) -> torch.Tensor:
        """The last step's Q; random numbers, the same on all workers, in the first."""
        if name not in self._second:
            random = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            shape = (matrix.shape[1], self._rank)
            self._second[name] = torch.randn(shape, generator=random, dtype=torch.float64).to(matrix.dtype)
        return self._second[name]

    def _average(self, tensors: list[torch.Tensor]) -> None:
        """The means over the workers in place, in one message."""
        if not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        self.bytes += flat.nbytes
        flat /= self._size
        for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def state(self) -> Any:
        return {"step": self._step, "residuals": dict(self._residuals), "second": dict(self._second)}

    def load_state(self, state: Any) -> None:
        self._step = state["step"]
        self._second = dict(state["second"])
        self._residuals = dict(state["residuals"])
