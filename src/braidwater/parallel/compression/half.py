"""Gradients in 16 bits on their way: half the bytes of float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook, fp16_compress_hook

from braidwater.errors import OptionError
from braidwater.parallel.compression.base import Compression, Exchange

_HOOKS = {"fp16": fp16_compress_hook, "bf16": bf16_compress_hook}

if TYPE_CHECKING:
    from torch._C._distributed_c10d import GradBucket


@dataclass(frozen=True)
class Half(Compression):
    """Send gradients as `dtype`, and sum them there: 2 bytes a parameter and step.

    ``"fp16"`` keeps 11 bits and ends at 65504; ``"bf16"`` keeps 8 bits and float32's range. What is rounded off is lost.
    """

    name: ClassVar[str] = "half"
    keeps_residual: ClassVar[bool] = False
    dtype: Literal["fp16", "bf16"] = "bf16"

    def __post_init__(self) -> None:
        if self.dtype not in _HOOKS:
            raise OptionError("dtype", self.dtype, f"one of {', '.join(_HOOKS)}")

    def exchange(self, module: torch.nn.Module) -> Exchange:
        return _HalfExchange(self.dtype)


class _HalfExchange(Exchange):
    def __init__(self, dtype: str) -> None:
        self._hook = _HOOKS[dtype]

    def __call__(self, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        self.bytes += 2 * bucket.buffer().numel()
        assert dist.group.WORLD is not None
        return self._hook(dist.group.WORLD, bucket)
