"""Mixed precision by name: where products are computed in half the bytes, and how small gradients survive that.

Micikevicius et al. 2018 ("Mixed Precision Training", arXiv 1710.03740): weights, gradients and the optimiser stay float32;
inside `autocast` matrix products and convolutions run in 16 bits. bf16 has float32's range; fp16 has not, so the loss is
multiplied with a scale that follows the gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

Precision = Literal["float32", "bf16", "fp16", "float64"]
HALF: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def weights_dtype(precision: str) -> torch.dtype:
    """The dtype of weights and optimiser."""
    return torch.float64 if precision == "float64" else torch.float32


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context of a forward pass."""
    return torch.autocast(device.type, HALF[precision]) if precision in HALF else nullcontext()


class LossScale:
    """The factor on the loss in fp16: halved when gradients overflow, doubled after `patience` steps without that.

    A step whose gradients are not finite is left out, as in torch's `GradScaler`; that one cannot be told that other workers
    hold parts of the gradient.
    """

    def __init__(self, initial: float = 2.0**16, patience: int = 2000) -> None:
        self.value = initial
        self.patience = patience
        self.good_steps = 0

    def unscale(self, parameters: Sequence[torch.nn.Parameter]) -> bool:
        """Divide the gradients by the scale; whether all of them are finite."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_mul_(gradients, 1.0 / self.value)
        return bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients)))

    def update(self, finite: bool) -> None:
        """Follow the outcome of a step."""
        if not finite:
            self.value = max(self.value / 2, 1.0)
            self.good_steps = 0
            return
        self.good_steps += 1
        if self.good_steps == self.patience:
            self.value *= 2
            self.good_steps = 0
