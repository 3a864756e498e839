"""What an architecture is made of: layers, and the places where there is something to decide.

A node is a declaration. It tells its decisions, and builds a module from them, for rows of a known shape::

    Cell(
        blocks.linear(width=Choice([32, 64])),
        Repeat(Residual(OneOf(wide=Cell(...), narrow=Cell(...))), 1, 4),
        Optional(blocks.dropout(0.2)),
    )
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from braidwater.errors import OptionError, UnsupportedError
from braidwater.model_selection.architecture.modules import Added, Repeated, Switch
from braidwater.model_selection.space import Choice, Int, Parameter, as_parameter

Shape = tuple[int, ...]
Choices = Mapping[str, Any]
Built = tuple[nn.Module, Shape]


class Node(ABC):
    """A part of an architecture. Decisions are named by where they are: ``path`` is that place."""

    @abstractmethod
    def decisions(self, path: str, choices: Choices | None = None) -> dict[str, Parameter]:
        """What there is to decide, by name; with `choices`, only what matters where those were made."""

    @abstractmethod
    def build(self, path: str, choices: Choices | None, shape: Shape) -> Built:
        """The module for rows of `shape`, and the shape that it gives. Without `choices`: all that could be chosen, as one."""


class Layer(Node):
    """``make(shape, **arguments)`` returns a torch module for rows of `shape`; arguments may be ranges (`Choice`, `Int`, ...)."""

    def __init__(self, make: Callable[..., nn.Module], **arguments: Any) -> None:
        self.make = make
        self.arguments = arguments
        for name, value in arguments.items():
            if isinstance(value, Parameter):
                as_parameter(name, value)

    def decisions(self, path: str, choices: Choices | None = None) -> dict[str, Parameter]:
        return {join(path, name): value for name, value in self.arguments.items() if isinstance(value, Parameter)}

    def build(self, path: str, choices: Choices | None, shape: Shape) -> Built:
        if choices is None and self.decisions(path):
            raise UnsupportedError(
                f"One set of weights cannot be of several sizes: {next(iter(self.decisions(path)))!r} is a range. For a supernet "
                "give each value as an option of OneOf, all with one shape in the end."
            )
        given = {n: choices[join(path, n)] if isinstance(v, Parameter) else v for n, v in self.arguments.items()}  # type: ignore[index]
        module = self.make(shape, **given)
        return module, shape_after(module, shape, path)


class Cell(Node):
    """Nodes one after another."""

    def __init__(self, *nodes: Node) -> None:
        for node in nodes:
            _require_node(node)
        self.nodes = nodes

    def decisions(self, path: str, choices: Choices | None = None) -> dict[str, Parameter]:
        found: dict[str, Parameter] = {}
        for number, node in enumerate(self.nodes):
            found |= node.decisions(join(path, str(number)), choices)
        return found

    def build(self, path: str, choices: Choices | None, shape: Shape) -> Built:
        modules = []
        for number, node in enumerate(self.nodes):
            module, shape = node.build(join(path, str(number)), choices, shape)
            modules.append(module)
        return nn.Sequential(*modules), shape


class OneOf(Node):
    """One of several nodes, each with a name: ``OneOf(small=blocks.conv(16, 3), large=blocks.conv(16, 5))``."""

    def __init__(self, **options: Node) -> None:
        if len(options) < 2:
            raise OptionError("options", list(options), "two or more, each with a name")
        for node in options.values():
            _require_node(node)
        self.options = options

    def decisions(self, path: str, choices: Choices | None = None) -> dict[str, Parameter]:
        own = join(path, "choice")
        chosen = list(self.options) if choices is None else [choices[own]]
        found: dict[str, Parameter] = {own: Choice(list(self.options))}
        for name in chosen:
            found |= self.options[name].decisions(join(path, name), choices)
        return found

    def build(self, path: str, choices: Choices | None, shape: Shape) -> Built:
        own = join(path, "choice")
        names = list(self.options) if choices is None else [choices[own]]
        made = {name: self.options[name].build(join(path, name), choices, shape) for name in names}
        shapes = {name: given for name, (_, given) in made.items()}
        if len(set(shapes.values())) > 1:
            told = ", ".join(f"{name} {given}" for name, given in shapes.items())
            raise UnsupportedError(
                f"The options at {path!r} share weights of what follows, and give rows of other shapes: {told}."
            )
        return Switch(own, {name: module for name, (module, _) in made.items()}), shapes[names[0]]


class Optional(OneOf):
    """A node that may be left out: one that gives what it takes, where all are trained as one."""

    def __init__(self, node: Node) -> None:
        super().__init__(used=node, left_out=Layer(_nothing))


class Repeat(Node):
    """A node `low` to `high` times, one after another. `alike` makes the same decisions for each of them."""

    def __init__(self, node: Node, low: int, high: int, *, alike: bool = False) -> None:
        _require_node(node)
        if not 0 <= low < high:
            raise OptionError("low, high", (low, high), "from 0 on, low below high")
        self.node, self.low, self.high, self.alike = node, low, high, alike

    def decisions(self, path: str, choices: Choices | None = None) -> dict[str, Parameter]:
        own = join(path, "times")
        times = self.high if choices is None else int(choices[own])
        found: dict[str, Parameter] = {own: Int(self.low, self.high)}
        for number in range(times):
            found |= self.node.decisions(self._inner(path, number), choices)
        return found

    def build(self, path: str, choices: Choices | None, shape: Shape) -> Built:
        own = join(path, "times")
        times = self.high if choices is None else int(choices[own])
        modules = []
        for number in range(times):
            module, given = self.node.build(self._inner(path, number), choices, shape)
            if choices is None and given != shape:
                raise UnsupportedError(
                    f"What is repeated at {path!r} turns rows of {shape} into {given}; all as one needs one shape."
                )
            modules.append(module)
            shape = given
        return Repeated(own, modules), shape

    def _inner(self, path: str, number: int) -> str:
        return join(path, "each" if self.alike else str(number))


class Residual(Node):
    """What goes in, plus what a node makes of it (He, Zhang, Ren and Sun 2016). The node gives what it takes."""

    def __init__(self, node: Node) -> None:
        _require_node(node)
        self.node = node

    def decisions(self, path: str, choices: Choices | None = None) -> dict[str, Parameter]:
        return self.node.decisions(path, choices)

    def build(self, path: str, choices: Choices | None, shape: Shape) -> Built:
        module, given = self.node.build(path, choices, shape)
        if given != shape:
            raise UnsupportedError(
                f"The residual block at {path!r} turns rows of {shape} into {given}, which cannot be added."
            )
        return Added(module), shape


def shape_after(module: nn.Module, shape: Shape, path: str) -> Shape:
    """The shape of a row that `module` gives for rows of `shape`."""
    before = module.training
    module.eval()
    try:
        with torch.no_grad():
            return tuple(module(torch.zeros(2, *shape)).shape[1:])
    except (RuntimeError, ValueError, IndexError) as error:
        raise OptionError(
            f"layer {path!r}", type(module).__name__, f"one that takes rows of shape {shape}: {error}"
        ) from error
    finally:
        module.train(before)


def join(path: str, name: str) -> str:
    """The place `name` inside `path`."""
    return f"{path}.{name}" if path else name


def _nothing(shape: Shape) -> nn.Module:
    return nn.Identity()


def _require_node(node: Any) -> None:
    if not isinstance(node, Node):
        raise OptionError(
            "node", node, "a Layer, Cell, OneOf, Optional, Repeat or Residual; wrap a module's factory in Layer"
        )
