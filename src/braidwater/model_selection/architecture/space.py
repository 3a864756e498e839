"""An architecture: a tree of nodes, and the nets that it can become."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
from torch import Tensor, nn

from braidwater.deep.modules import Inputs
from braidwater.errors import OptionError
from braidwater.model_selection.architecture.nodes import Cell, Choices, Node, Shape
from braidwater.model_selection.space import Choice, Parameter


class Architecture:
    """A space of nets: `nodes` one after another, then a linear layer for the outputs.

    It is the factory of a `Trainer`, and its decisions are hyperparameters of an ordinary search::

        nets = Architecture(blocks.linear(Choice([16, 64])), blocks.activation(), Repeat(hidden, 0, 3))
        search(Trainer(nets, epochs=10), {**nets.space(), "learning_rate": LogFloat(1e-4, 1e-1)}, table, label="late")

    Decisions that do not matter where others were made (the layers of an option that was not chosen) are proposed and ignored.
    Images come as ``(channels, height, width)``, those without channels with one.
    """

    def __init__(self, *nodes: Node) -> None:
        self.body = Cell(*nodes)

    @property
    def decisions(self) -> dict[str, Parameter]:
        """Everything that may have to be decided, by name."""
        return self.body.decisions("")

    def space(self) -> dict[str, Parameter]:
        """The decisions as hyperparameters of a trainer, for `search`."""
        return {f"{PREFIX}{name}": parameter for name, parameter in self.decisions.items()}

    def active(self, choices: Choices) -> dict[str, Any]:
        """Those of `choices` that the net depends on; missing ones are an error."""
        try:
            return {name: choices[name] for name in self.body.decisions("", choices)}
        except KeyError as error:
            raise OptionError(
                "architecture", dict(choices), f"a choice for each decision; {error} is missing"
            ) from None

    def __call__(self, inputs: Inputs, outputs: int, **choices: Any) -> Net:
        """The net of these choices."""
        known = self.decisions
        for name in choices:
            if name not in known:
                raise OptionError(
                    "architecture", name, f"one of the decisions {', '.join(known) or '(there are none)'}"
                )
        self.active(choices)
        return self.build(inputs, outputs, choices)

    def build(self, inputs: Inputs, outputs: int, choices: Choices | None) -> Net:
        """The net of these choices; None: all that could be chosen in one net."""
        shape = _shape(inputs)
        body, given = self.body.build("", choices, shape)
        return Net(shape, body, math.prod(given), outputs)

    def sample(self, random: np.random.Generator) -> dict[str, Any]:
        """Every decision at random, each value as likely as the others."""
        return {name: values[int(random.integers(len(values)))] for name, values in self.values.items()}

    @property
    def values(self) -> dict[str, list[Any]]:
        """The values of every decision. A range without end is an error."""
        found: dict[str, list[Any]] = {}
        for name, parameter in self.decisions.items():
            values = list(parameter.values) if isinstance(parameter, Choice) else parameter.grid()
            if values is None:
                raise OptionError(
                    f"architecture {name!r}", parameter, "a Choice or an Int without log, to list its values"
                )
            found[name] = values
        return found

    def nets(self, most: int, random: np.random.Generator) -> list[dict[str, Any]]:
        """Choices of different nets: all of them, where there are no more than `most`, else `most` at random."""
        values = self.values
        points = math.prod(len(one) for one in values.values())
        found: dict[str, dict[str, Any]] = {}
        if points <= _LISTED:
            for point in product(*values.values()):
                choices = dict(zip(values, point, strict=True))
                found.setdefault(self.key(choices), choices)
        if 0 < len(found) <= most:
            return list(found.values())
        found = {}
        for _ in range(100 * most):
            choices = self.sample(random)
            found.setdefault(self.key(choices), choices)
            if len(found) == most:
                break
        return list(found.values())

    def key(self, choices: Choices) -> str:
        """The same for choices of the same net."""
        return repr(self.active(choices))


PREFIX = "module_arguments."
_LISTED = 20_000  # points of a space that are looked at one by one: a second


class Net(nn.Module):
    """The body of an architecture and its head."""

    def __init__(self, shape: Shape, body: nn.Module, width: int, outputs: int) -> None:
        super().__init__()
        self.shape = shape
        self.body = body
        self.head = nn.Linear(width, outputs)

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.head(self.body(features.reshape(-1, *self.shape)).flatten(1))
        return found


def _shape(inputs: Inputs) -> Shape:
    if isinstance(inputs, int):
        return (inputs,)
    return (1, *inputs) if len(inputs) == 2 else tuple(inputs)


def choices_in(parameters: Mapping[str, Any], architecture: Architecture) -> dict[str, Any]:
    """The decisions among the hyperparameters of a trial."""
    known = architecture.decisions
    named = {name.removeprefix(PREFIX): value for name, value in parameters.items()}
    return {name: value for name, value in named.items() if name in known}
