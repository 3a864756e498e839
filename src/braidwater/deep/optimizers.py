"""Optimisers by name, and which parameters they change at which rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import torch

from braidwater.errors import OptionError
from braidwater.parallel.optimizer_step import are_plain

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}

_FUSED = ("adamw", "adam")
_FORMS = {"fused", "foreach", "capturable", "differentiable"}

OptimizerChoice = str | Callable[..., torch.optim.Optimizer]


@dataclass(frozen=True)
class OptimizerPlan:
    """Makes the optimiser of a module; each worker calls it on its own copy.

    `freeze` are shell patterns of the names of parameters that stay as they are; `groups` gives learning rates by pattern
    (the first that fits counts), the rest is trained at `learning_rate`.

    >>> module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    >>> optimizer = OptimizerPlan("sgd", 0.1, freeze=("0.bias",), groups={"1.*": 0.01})(module)
    >>> [(group["lr"], len(group["params"])) for group in optimizer.param_groups]
    [(0.01, 2), (0.1, 1)]
    """

    optimizer: OptimizerChoice = "adamw"
    learning_rate: float = 1e-3
    arguments: Mapping[str, Any] = field(default_factory=dict)
    freeze: Sequence[str] = ()
    groups: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.optimizer, str) and self.optimizer not in OPTIMIZERS:
            raise OptionError(
                "optimizer", self.optimizer, f"one of {', '.join(OPTIMIZERS)}, or a function of (parameters, lr)"
            )
        for name, rate in {"learning_rate": self.learning_rate, **self.groups}.items():
            if not rate > 0:
                raise OptionError(name, rate, "a learning rate above 0")

    def __call__(self, module: torch.nn.Module) -> torch.optim.Optimizer:
        names = [name for name, _ in module.named_parameters()]
        for option, patterns in (("freeze", self.freeze), ("groups", self.groups)):
            for pattern in patterns:
                _require_match(option, pattern, names)
        parts: dict[float, list[torch.nn.Parameter]] = {}
        for name, parameter in module.named_parameters():
            if any(fnmatchcase(name, pattern) for pattern in self.freeze):
                parameter.requires_grad_(False)
            if parameter.requires_grad:
                parts.setdefault(self._rate(name), []).append(parameter)
        if not parts:
            raise OptionError("freeze", list(self.freeze), "patterns that leave a parameter to train")
        # the groups first, in their order, so that the learning rate that is reported last is that of the rest
        ordered = sorted(parts, key=lambda rate: [*self.groups.values(), self.learning_rate].index(rate))
        found = [{"params": parts[rate], "lr": rate} for rate in ordered]
        if isinstance(self.optimizer, str):
            return optimizer_named(self.optimizer, found, self.learning_rate, self.arguments)
        return self.optimizer(found, lr=self.learning_rate, **self.arguments)

    def _rate(self, name: str) -> float:
        for pattern, rate in self.groups.items():
            if fnmatchcase(name, pattern):
                return rate
        return self.learning_rate


def optimizer_named(
    name: str, groups: Sequence[Mapping[str, Any]], rate: float, arguments: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """A new optimiser by its name. Adam steps by one kernel, where it can and nothing else was asked for: a third of the time."""
    parameters = [parameter for group in groups for parameter in group["params"]]
    fuses = name in _FUSED and not arguments.keys() & _FORMS and are_plain(parameters)
    make: Callable[..., torch.optim.Optimizer] = OPTIMIZERS[name]
    return make(groups, lr=rate, **arguments, **({"fused": True} if fuses else {}))


def _require_match(option: str, pattern: str, names: Sequence[str]) -> None:
    if not any(fnmatchcase(name, pattern) for name in names):
        near = get_close_matches(pattern.strip("*."), names, n=1, cutoff=0.3)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise OptionError(option, pattern, f"a pattern of the names of parameters, such as {names[0]!r}{hint}")
