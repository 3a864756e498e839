"""Layers of a net that are replaced by the identity."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from braidwater.deep.building import ModuleSpec, check_outputs, import_factory
from braidwater.deep.inputs import InputForm
from braidwater.errors import OptionError
from braidwater.tables import Table


@dataclass
class LayerShapes:
    """What a layer was called with and gave, for two rows: pairs of shapes, None for what is no single tensor."""

    leaf: bool
    calls: list[tuple[tuple[int, ...] | None, tuple[int, ...] | None]] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether the identity can stand in its place."""
        return bool(self.calls) and all(taken is not None and taken == given for taken, given in self.calls)


@dataclass(frozen=True)
class WithoutLayers:
    """The factory of the net that `module` makes, with the identity in the place of the layers that fit the `patterns`.

    The whole net is made first: what is left begins with the weights that it has there.
    """

    module: ModuleSpec
    patterns: tuple[str, ...]

    def __call__(self, inputs: Any, outputs: int, **arguments: Any) -> nn.Module:
        if isinstance(self.module, nn.Module):
            made = copy.deepcopy(self.module)
        else:
            factory = import_factory(self.module) if isinstance(self.module, str) else self.module
            made = factory(inputs, outputs, **arguments)
        for name in outermost(matched([name for name, _ in made.named_modules() if name], self.patterns)):
            parent, _, child = name.rpartition(".")
            setattr(made.get_submodule(parent), child, nn.Identity())
        return made


def layer_shapes(trainer: Any, rows: Table, arguments: Mapping[str, Any]) -> dict[str, LayerShapes]:
    """The shapes at every layer of a trainer's net, by name: two rows of zeros go through it."""
    roles = {name: arguments[name] for name in ("label", "features", "exclude", "weight") if name in arguments}
    encoding = trainer.encode(rows, **roles)
    form, loss = InputForm(encoding, trainer.precision), trainer.loss_of(encoding)
    module = trainer.make_module(form, loss)
    found = {name: LayerShapes(not list(layer.children())) for name, layer in module.named_modules() if name}
    for name, layer in module.named_modules():
        if name:
            layer.register_forward_hook(_recorder(found[name]))
    check_outputs(module, form, loss.target, len(encoding.classes or [None]))
    return found


def _recorder(shapes: LayerShapes) -> Any:
    def record(layer: nn.Module, taken: tuple[Any, ...], given: Any) -> None:
        only = taken[0] if len(taken) == 1 else None
        shapes.calls.append((_shape(only), _shape(given)))

    return record


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def refuse_other_shapes(shapes: Mapping[str, LayerShapes], patterns: Sequence[str]) -> None:
    """Raise for the first of the layers that fit the patterns whose output has not the shape of its input."""
    for name in outermost(matched(list(shapes), patterns)):
        found = shapes[name]
        if found.fits:
            continue
        if not found.calls:
            raise OptionError("layers", name, "a layer that the net calls with one tensor; this one is not called")
        taken, given = next(call for call in found.calls if call[0] is None or call[0] != call[1])
        told = f"it takes {_told(taken)} and gives {_told(given)} for two rows"
        fitting = [other for other, one in shapes.items() if one.fits]
        hint = f"These do: {', '.join(fitting[:12])}" if fitting else "None of this net does"
        raise OptionError("layers", name, f"a layer that gives what it takes: {told}. {hint}")


def matched(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The names that fit one of the patterns; a pattern that none fits is an error with the nearest name."""
    chosen: dict[str, None] = {}
    for pattern in patterns:
        found = [name for name in names if fnmatchcase(name, pattern)]
        if not found:
            near = get_close_matches(pattern, names, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(names[:20])}."
            raise OptionError("layers", pattern, f"the name of a layer of the net, or a pattern of names. {hint}")
        chosen |= dict.fromkeys(found)
    return list(chosen)


def outermost(names: Sequence[str]) -> list[str]:
    """Those names that do not lie inside another one of them."""
    return [name for name in names if not any(name.startswith(f"{other}.") for other in names)]


def _told(shape: tuple[int, ...] | None) -> str:
    return "no single tensor" if shape is None else f"shape {shape}"
