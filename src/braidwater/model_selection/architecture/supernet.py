"""All nets of an architecture as one, whose weights they share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from braidwater.deep.modules import Inputs
from braidwater.model_selection.architecture.modules import Repeated, Switch
from braidwater.model_selection.architecture.nodes import Choices
from braidwater.model_selection.architecture.space import Architecture, Net


class Supernet(nn.Module):
    """Trains one path a step, drawn uniformly; in evaluation it is the net of the path that was set last.

    Guo, Zhang, Mu, Heng, Liu, Wei and Sun 2019, "Single Path One-Shot Neural Architecture Search with Uniform Sampling", arXiv
    1904.00420. Every option of the architecture must give rows of one shape. The tensors of a path have the names that they have
    in the net of its choices: ``net.load_state_dict(supernet.weights_of(net))``.
    """

    def __init__(self, architecture: Architecture, inputs: Inputs, outputs: int) -> None:
        super().__init__()
        self.net: Net = architecture.build(inputs, outputs, None)
        self.values = architecture.values
        self.set_path({name: values[0] for name, values in self.values.items()})

    def sample_path(self) -> dict[str, Any]:
        """Every decision at random, from torch's random numbers, so that a training's seed decides."""
        return {name: values[int(torch.randint(len(values), ()))] for name, values in self.values.items()}

    def set_path(self, choices: Choices) -> None:
        """Be the net of these choices from now on."""
        for module in self.net.modules():
            if isinstance(module, Switch):
                module.chosen = choices[module.decision]
            elif isinstance(module, Repeated):
                module.times = int(choices[module.decision])

    def weights_of(self, net: nn.Module) -> Mapping[str, Tensor]:
        """The tensors that a net of the same architecture shares with this one, by its names."""
        own = self.net.state_dict()
        return {name: own[name] for name in net.state_dict()}

    def forward(self, features: Tensor) -> Tensor:
        if self.training:
            self.set_path(self.sample_path())
        found: Tensor = self.net(features)
        return found


class SupernetOf:
    """The factory of an architecture's supernet."""

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture

    def __call__(self, inputs: Inputs, outputs: int) -> Supernet:
        return Supernet(self.architecture, inputs, outputs)
