"""The modules that nodes become, where there was something to decide. In a supernet they hold every option."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


class Switch(nn.Module):
    """The chosen one of its children."""

    def __init__(self, decision: str, options: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.decision = decision
        for name, module in options.items():
            self.add_module(name, module)
        self.chosen = next(iter(options))

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.get_submodule(self.chosen)(features)
        return found


class Repeated(nn.Module):
    """The first `times` of its children, one after another."""

    def __init__(self, decision: str, modules: list[nn.Module]) -> None:
        super().__init__()
        self.decision = decision
        for number, module in enumerate(modules):
            self.add_module(str(number), module)
        self.times = len(modules)

    def forward(self, features: Tensor) -> Tensor:
        for number in range(self.times):
            features = self.get_submodule(str(number))(features)
        return features


class Added(nn.Module):
    """Its input plus its child's output."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = features + self.inner(features)
        return found
