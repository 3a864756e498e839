"""The fitted attributes of many models of one kind, in arrays rather than in as many objects."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from braidwater.blocks.base import Array
from braidwater.estimators.base import TableEstimator

# what is the same for all models, and kept with the one that they are copied from
SHARED = ("encoding_", "plan_", "classes_", "trained_on_", "feature_names_", "feature_names_in_", "n_features_in_")
_SCALARS = {"b": bool, "i": int, "f": float}


@dataclass(frozen=True)
class ModelStack:
    """Attribute by attribute: `arrays` ``(models, ...)`` where all models have numbers of one shape, else `lists`.

    `present` ``(models,)`` says which models there are; in place of the others stand zeros and None. Arrays whose names are in
    `scalars` hold a plain number a model. `details` computes more attributes ``(models, ...)`` of the models at some places:
    those that cost more than all others and that few ask for.
    """

    present: Array
    arrays: dict[str, Array]
    lists: dict[str, list[Any]]
    scalars: frozenset[str]
    details: Callable[[Array], dict[str, Array]] | None = None

    @staticmethod
    def of_arrays(
        arrays: Mapping[str, Array],
        places: Array,
        count: int,
        constants: Mapping[str, Any],
        details: Callable[[Array], dict[str, Array]] | None = None,
    ) -> ModelStack:
        """A stack of `count` models of which those at `places` are given, all with the same `constants`."""
        present = np.zeros(count, bool)
        present[places] = True
        spread: dict[str, Array] = {}
        for name, values in arrays.items():
            spread[name] = np.zeros((count, *values.shape[1:]), values.dtype)
            spread[name][places] = values
        lists = {name: [value] * count for name, value in constants.items()}
        scalars = frozenset(name for name, values in arrays.items() if values.ndim == 1)
        return ModelStack(present, spread, lists, scalars, details)

    def whole(self) -> ModelStack:
        """The stack with the `details` of all models."""
        if self.details is None:
            return self
        places = np.flatnonzero(self.present)
        more = ModelStack.of_arrays(self.details(places), places, len(self.present), {})
        return replace(self, arrays=self.arrays | more.arrays, scalars=self.scalars | more.scalars, details=None)

    @staticmethod
    def of_models(models: Sequence[TableEstimator | None]) -> ModelStack:
        """The attributes of fitted models; None where there is no model."""
        present = np.array([model is not None for model in models], bool)
        names = dict.fromkeys(
            name for model in models if model is not None for name in vars(model) if _is_fitted_attribute(name)
        )
        arrays: dict[str, Array] = {}
        lists: dict[str, list[Any]] = {}
        scalars: set[str] = set()
        for name in names:
            values = [None if model is None else getattr(model, name, None) for model in models]
            stacked = _stacked(values, present)
            if stacked is None:
                lists[name] = values
                continue
            arrays[name] = stacked
            if not isinstance(values[int(np.flatnonzero(present)[0])], np.ndarray):
                scalars.add(name)
        return ModelStack(present, arrays, lists, frozenset(scalars))

    def joined(self, other: ModelStack) -> ModelStack:
        """The models of both; none is in both."""
        self, other = self.whole(), other.whole()
        if not other.present.any() or not self.present.any():
            return self if self.present.any() else other
        arrays: dict[str, Array] = {}
        lists: dict[str, list[Any]] = {}
        for name in dict.fromkeys((*self.arrays, *self.lists, *other.arrays, *other.lists)):
            one, two = self.arrays.get(name), other.arrays.get(name)
            if one is not None and two is not None and one.shape == two.shape:
                chosen = other.present.reshape(-1, *[1] * (one.ndim - 1))
                arrays[name] = np.where(chosen, two, one)
            else:
                lists[name] = [(other if mine else self)._value(name, k) for k, mine in enumerate(other.present)]
        scalars = frozenset(name for name in arrays if name in self.scalars)
        return ModelStack(self.present | other.present, arrays, lists, scalars)

    def _value(self, name: str, number: int) -> Any:
        if name not in self.arrays:
            return self.lists[name][number] if name in self.lists else None
        value = self.arrays[name][number]
        return _SCALARS[value.dtype.kind](value) if name in self.scalars else value

    def model(self, number: int, template: TableEstimator, *, details: bool = False) -> Any:
        """Model `number`, a copy of `template` with attributes of its own; the `details` where they are asked for."""
        model = copy.copy(template)
        for name in (*self.arrays, *self.lists):
            setattr(model, name, self._value(name, number))
        if details and self.details is not None:
            for name, values in self.details(np.array([number])).items():
                setattr(model, name, _SCALARS[values.dtype.kind](values[0]) if values.ndim == 1 else values[0])
        return model

    def to_saved(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """What JSON can hold, and arrays."""
        if self.details is not None:
            return self.whole().to_saved()
        lists = {name: [_plain(value) for value in values] for name, values in self.lists.items()}
        return {"lists": lists, "scalars": sorted(self.scalars)}, {"present": self.present, **self.arrays}

    @staticmethod
    def from_saved(document: dict[str, Any], arrays: dict[str, Array]) -> ModelStack:
        """The stack that `to_saved` described."""
        rest = dict(arrays)
        present = rest.pop("present")
        lists = {name: [_from_plain(value) for value in values] for name, values in document["lists"].items()}
        return ModelStack(present, rest, lists, frozenset(document["scalars"]))


def _is_fitted_attribute(name: str) -> bool:
    return name.endswith("_") and not name.startswith("_") and name not in SHARED


def _stacked(values: list[Any], present: Array) -> Array | None:
    """One array of all values; None where they are no numbers, or of different shapes."""
    there = [value for value in values if value is not None]
    if len(there) != present.sum() or not there:
        return None
    found = [np.asarray(value) for value in there]
    kinds = {(value.shape, value.dtype.kind) for value in found}
    if len(kinds) != 1 or found[0].dtype.kind not in "fib":
        return None
    stack = np.zeros((len(values), *found[0].shape), np.result_type(*{value.dtype for value in found}))
    stack[present] = np.stack(found)
    return stack


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": value.dtype.str, "shape": list(value.shape)}
    return value


def _from_plain(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"array", "dtype", "shape"}:
        return np.array(value["array"], np.dtype(value["dtype"])).reshape(value["shape"])
    return value
