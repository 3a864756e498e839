"""Optimisers over stacks: each row of a matrix ``(models, weights)`` with its own learning rate, momenta and weight decay.

The steps are those of `torch.optim` (Sutskever et al. 2013 for momentum; Kingma and Ba 2015; Loshchilov and Hutter 2019),
number for number but for rounding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

_CLIP = 1e-6  # torch adds it to a norm before it divides by it


class StackedOptimizer(ABC):
    """A step for all models at once. `settings` are the first parameter groups of the optimisers that each would have alone."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        groups = [optimizer.param_groups[0] for optimizer in optimizers]
        self.settings = {
            name: torch.tensor([[float(value)] for value in values], dtype=torch.float64)
            for name, values in self.columns(groups).items()
        }
        self.steps = 0
        self.state: dict[str, torch.Tensor] = {}

    @abstractmethod
    def columns(self, groups: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
        """The settings that may differ from model to model, by name."""

    @abstractmethod
    def update(self, weights: torch.Tensor, gradients: torch.Tensor, rates: torch.Tensor) -> None:
        """Change `weights` in place. `rates` are ``(models, 1)``; `gradients` may be changed."""

    def step(
        self, weights: torch.Tensor, gradients: torch.Tensor, rates: Sequence[float], norms: Sequence[float] | None
    ) -> None:
        """One step; `norms` are the largest norms of the gradients, model by model."""
        self.steps += 1
        with torch.no_grad():
            if norms is not None:
                limit = torch.tensor(norms, dtype=weights.dtype)[:, None]
                size = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
                gradients.mul_((limit / (size + _CLIP)).clamp(max=1.0))
            self.update(weights, gradients, torch.tensor(rates, dtype=torch.float64)[:, None])

    def keep(self, places: torch.Tensor) -> None:
        """Leave out all models but those at `places`."""
        self.settings = {name: value[places] for name, value in self.settings.items()}
        self.state = {name: value[places] for name, value in self.state.items()}

    def _of(self, name: str, weights: torch.Tensor) -> torch.Tensor:
        return self.settings[name].to(weights.dtype)


class StackedSGD(StackedOptimizer):
    """SGD, with or without momentum."""

    def columns(self, groups: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
        return {
            name: [group[name] for group in groups] for name in ("momentum", "dampening", "weight_decay", "nesterov")
        }

    def update(self, weights: torch.Tensor, gradients: torch.Tensor, rates: torch.Tensor) -> None:
        momentum = self._of("momentum", weights)
        gradients.addcmul_(self._of("weight_decay", weights), weights)
        if bool((momentum != 0).any()):
            moving = momentum != 0
            if "momentum" not in self.state:
                self.state["momentum"] = gradients.clone()
            else:
                kept = 1 - torch.where(moving, self._of("dampening", weights), 0.0)
                self.state["momentum"].mul_(momentum).addcmul_(kept, gradients)
            held = self.state["momentum"]
            ahead = self._of("nesterov", weights) * moving
            gradients = ahead * (gradients + momentum * held) + (1 - ahead) * held
        weights.addcmul_(rates.to(weights.dtype), gradients, value=-1)


class StackedAdam(StackedOptimizer):
    """Adam, and AdamW where the weight decay is decoupled from the gradients."""

    decoupled = False

    def columns(self, groups: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
        betas: list[tuple[Any, Any]] = [group["betas"] for group in groups]
        plain = {name: [group[name] for group in groups] for name in ("eps", "weight_decay")}
        return plain | {"beta1": [pair[0] for pair in betas], "beta2": [pair[1] for pair in betas]}

    def update(self, weights: torch.Tensor, gradients: torch.Tensor, rates: torch.Tensor) -> None:
        if not self.state:
            self.state = {"mean": torch.zeros_like(weights), "square": torch.zeros_like(weights)}
        decay, dtype = self.settings["weight_decay"], weights.dtype
        if self.decoupled:
            weights.mul_((1 - rates * decay).to(dtype))
        else:
            gradients.addcmul_(decay.to(dtype), weights)
        beta1, beta2 = self.settings["beta1"], self.settings["beta2"]
        mean, square = self.state["mean"], self.state["square"]
        mean.lerp_(gradients, (1 - beta1).to(dtype))
        square.mul_(beta2.to(dtype)).addcmul_(gradients * (1 - beta2).to(dtype), gradients)
        size = square.sqrt().div_((1 - beta2**self.steps).sqrt().to(dtype)).add_(self._of("eps", weights))
        weights.addcmul_((rates / (1 - beta1**self.steps)).to(dtype), mean / size, value=-1)


class StackedAdamW(StackedAdam):
    """Adam with decoupled weight decay."""

    decoupled = True


_KINDS: dict[type[torch.optim.Optimizer], type[StackedOptimizer]] = {
    torch.optim.SGD: StackedSGD,
    torch.optim.Adam: StackedAdam,
    torch.optim.AdamW: StackedAdamW,
}
_PLAIN = ("amsgrad", "maximize", "capturable", "differentiable")


def optimizer_of(optimizers: Sequence[torch.optim.Optimizer]) -> StackedOptimizer:
    """One optimiser that does what each of `optimizers`, all of one kind, would do to its row."""
    return _KINDS[type(optimizers[0])](optimizers)


def why_not_stacked(optimizer: torch.optim.Optimizer) -> str:
    """Why an optimiser has no form for stacks; empty where it has one."""
    if type(optimizer) not in _KINDS:
        return f"{type(optimizer).__name__} has no form for stacks; SGD, Adam and AdamW have"
    if len(optimizer.param_groups) > 1:
        return "parameters have learning rates of their own"
    options = [name for name in _PLAIN if optimizer.param_groups[0].get(name)]
    return f"the optimiser's option {options[0]} has no form for stacks" if options else ""
