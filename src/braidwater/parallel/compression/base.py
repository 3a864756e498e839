"""The contract of a compression of gradients, and of the exchange of gradients in general."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

if TYPE_CHECKING:
    from torch._C._distributed_c10d import GradBucket


@dataclass(frozen=True)
class Compression(ABC):
    """How the gradients of a step become fewer bytes. Two workers may hold other gradients after it than without."""

    name: ClassVar[str]
    # whether what a step leaves out is remembered and sent later: then every worker has a residual of its own
    keeps_residual: ClassVar[bool]

    @abstractmethod
    def exchange(self, module: torch.nn.Module) -> Exchange:
        """What averages the gradients of `module` over the workers."""


class Exchange(ABC):
    """How the gradients of one bucket become their mean over the workers: a hook of DistributedDataParallel.

    `bytes` counts what this worker hands over to the others.
    """

    bytes = 0

    @abstractmethod
    def __call__(self, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        """The means, in a tensor like ``bucket.buffer()``, when they are there."""

    def take_bytes(self) -> int:
        """The bytes since the last time."""
        found, self.bytes = self.bytes, 0
        return found

    def state(self) -> Any:
        """What has to be remembered from step to step: plain values and tensors in any nesting."""
        return {}

    def load_state(self, state: Any) -> None:
        """Take up what `state` gave."""


def done(bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    """The answer of an exchange that has put the means into the bucket itself."""
    future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future
