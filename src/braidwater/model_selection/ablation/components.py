"""What can be left out of a model: columns, layers, and settings that are changed instead."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from braidwater.encoding import Encoding
from braidwater.errors import ColumnNotFoundError, OptionError, UnsupportedError
from braidwater.model_selection.variants import check_names, is_trainer, variant
from braidwater.tables import Table

FULL = "nothing"  # what is left out of the model as it is
Fit = tuple[Any, dict[str, Any]]  # an unfitted model, and what its `fit` is called with


class Component(ABC):
    """A part of a model or of its rows that a training can do without."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called where nobody names it."""

    @abstractmethod
    def left_out(self, model: Any, rows: Table, arguments: Mapping[str, Any]) -> Fit:
        """`model` without it, and the arguments for its `fit`. What cannot be left out is an error here, before anything runs."""


class Columns(Component):
    """Features, by names or shell patterns: ``Columns("lat", "lon")``, ``Columns("weather_*")``. All of them are left out."""

    def __init__(self, *patterns: str) -> None:
        if not patterns:
            raise OptionError("columns", patterns, "a column or more")
        self.patterns = patterns

    def __repr__(self) -> str:
        return f"Columns{self.patterns!r}"

    @property
    def name(self) -> str:
        return " + ".join(self.patterns)

    def left_out(self, model: Any, rows: Table, arguments: Mapping[str, Any]) -> Fit:
        features = feature_columns(rows, arguments)
        gone: dict[str, None] = {}
        for pattern in self.patterns:
            found = [name for name in features if name == pattern or fnmatchcase(name, pattern)]
            if not found and pattern in rows.column_names:
                raise OptionError("components", pattern, f"one of the features: {', '.join(features)}")
            if not found:
                raise ColumnNotFoundError(rows.name, pattern, features)
            gone |= dict.fromkeys(found)
        if len(gone) == len(features):
            raise OptionError("components", self.name, "some of the features: without these there is none")
        declared = arguments.get("features")
        if declared is None:
            return model, {**arguments, "exclude": [*arguments.get("exclude", ()), *gone]}
        if isinstance(declared, Mapping):
            kept = _encoding(arguments).encoders(rows)
            return model, {**arguments, "features": {name: kept[name] for name in features if name not in gone}}
        return model, {**arguments, "features": [name for name in features if name not in gone]}


class Layers(Component):
    """Modules of a net, by their names or shell patterns: ``Layers("layers.2")``, ``Layers("blocks.1.*")``.

    Each is replaced by the identity, so it must give what it takes, in shape; other layers begin with the weights that they
    have in the whole net.
    """

    def __init__(self, *patterns: str) -> None:
        if not patterns:
            raise OptionError("layers", patterns, "a name of a layer or more")
        self.patterns = patterns

    def __repr__(self) -> str:
        return f"Layers{self.patterns!r}"

    @property
    def name(self) -> str:
        return " + ".join(self.patterns)

    def left_out(self, model: Any, rows: Table, arguments: Mapping[str, Any]) -> Fit:
        if not is_trainer(model):
            raise UnsupportedError(f"A {type(model).__name__} has no layers; Layers are those of a Trainer's module.")
        from braidwater.model_selection.ablation.layers import WithoutLayers, layer_shapes, refuse_other_shapes

        refuse_other_shapes(layer_shapes(model, rows, arguments), self.patterns)
        return variant(model, {"module": WithoutLayers(model.module, self.patterns)}), dict(arguments)


class Setting(Component):
    """Hyperparameters that take other values: what a component is worth that a setting turns off.

    ``Setting(dropout=0.0)``, ``Setting({"module_arguments.attention": False})``; names are those of a search's space.
    """

    def __init__(self, values: Mapping[str, Any] | None = None, **more: Any) -> None:
        self.values = {**(values or {}), **more}
        if not self.values:
            raise OptionError("values", self.values, "a hyperparameter or more with another value")

    def __repr__(self) -> str:
        return f"Setting({self.values!r})"

    @property
    def name(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.values.items())

    def left_out(self, model: Any, rows: Table, arguments: Mapping[str, Any]) -> Fit:
        check_names(model, list(self.values))
        return variant(model, self.values), dict(arguments)


Wish = str | Sequence[Any] | Mapping[str, Any] | None


def components_of(wish: Wish, model: Any, rows: Table, arguments: Mapping[str, Any]) -> dict[str, Component]:
    """Components by name: each feature (None or ``"features"``), each layer that can be left out (``"layers"``), or those given.

    In a list or dictionary a text stands for a column (or the columns that fit a pattern), a list of texts for several of them.
    """
    if wish is None or wish == "features":
        wish = feature_columns(rows, arguments)
    elif wish == "layers":
        wish = _every_layer(model, rows, arguments)
    elif isinstance(wish, (str, Component)):
        wish = [wish]
    named = wish.items() if isinstance(wish, Mapping) else [(None, one) for one in wish]
    found: dict[str, Component] = {}
    for name, one in named:
        component = _component(one)
        name = component.name if name is None else str(name)
        if name in found or name == FULL:
            raise OptionError("components", name, f"a name of one component only, and not {FULL!r}")
        found[name] = component
    if not found:
        raise OptionError("components", wish, "a component or more, such as ['distance', ['lat', 'lon']]")
    return found


def feature_columns(rows: Table, arguments: Mapping[str, Any]) -> list[str]:
    """The columns that the model learns from."""
    return list(_encoding(arguments).encoders(rows))


def _encoding(arguments: Mapping[str, Any]) -> Encoding:
    weight = arguments.get("sample_weight", arguments.get("weight"))
    roles = [name for name in (arguments.get("label"), weight, arguments.get("offset")) if isinstance(name, str)]
    return Encoding(features=arguments.get("features"), exclude=[*arguments.get("exclude", ()), *roles])


def _component(one: Any) -> Component:
    if isinstance(one, Component):
        return one
    if isinstance(one, str):
        return Columns(one)
    if isinstance(one, Sequence) and all(isinstance(name, str) for name in one):
        return Columns(*one)
    raise OptionError("components", one, "a column, a list of columns, Columns, Layers or Setting")


def _every_layer(model: Any, rows: Table, arguments: Mapping[str, Any]) -> list[Component]:
    if not is_trainer(model):
        raise OptionError("components", "layers", f"'features' for a {type(model).__name__}, which has no layers")
    from braidwater.model_selection.ablation.layers import layer_shapes

    shapes = layer_shapes(model, rows, arguments)
    found: list[Component] = [Layers(name) for name, shape in shapes.items() if shape.leaf and shape.fits]
    if not found:
        raise OptionError(
            "components", "layers", f"'features': no layer of {model.module!r} keeps the shape of its input"
        )
    return found
