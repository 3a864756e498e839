"""Which hyperparameters a search may try: ranges and choices by name, or a function of an Optuna trial."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from braidwater.errors import OptionError, UserError

Conditional = Callable[[Any], Mapping[str, Any] | None]
SpaceChoice = Mapping[str, Any] | Conditional


class Parameter(ABC):
    """The values that one hyperparameter may take."""

    @abstractmethod
    def problem(self) -> str | None:
        """What must be changed about an impossible range; None where it is possible."""

    @abstractmethod
    def suggest(self, trial: Any, name: str) -> Any:
        """A value, from an `optuna.Trial`."""

    @abstractmethod
    def grid(self) -> list[Any] | None:
        """Every value as Optuna knows it; None where there are infinitely many."""


@dataclass(frozen=True)
class Float(Parameter):
    """A number from `low` to `high`, both included. `log` tries each power of ten as often; `step` only every so many."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def problem(self) -> str | None:
        if not self.low < self.high:
            return "a range whose low end lies below its high end"
        if self.log and self.low <= 0:
            return "a range above 0, because it is logarithmic"
        if self.step is not None and (self.log or not 0 < self.step <= self.high - self.low):
            return "a range with a step above 0 that fits into it, and not logarithmic"
        return None

    def suggest(self, trial: Any, name: str) -> float:
        return float(trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step))

    def grid(self) -> list[Any] | None:
        if self.step is None:
            return None
        count = int((self.high - self.low) / self.step + 1e-9) + 1
        return [self.low + number * self.step for number in range(count)]


def LogFloat(low: float, high: float) -> Float:  # noqa: N802 - it stands where a class would
    """A number from `low` to `high`, each power of ten tried as often.

    >>> LogFloat(1e-4, 1e-1)
    Float(low=0.0001, high=0.1, log=True, step=None)
    """
    return Float(low, high, log=True)


@dataclass(frozen=True)
class Int(Parameter):
    """A whole number from `low` to `high`, both included."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    def problem(self) -> str | None:
        if any(not isinstance(end, int) for end in (self.low, self.high, self.step)):
            return "a range of whole numbers"
        if not self.low < self.high:
            return "a range whose low end lies below its high end"
        if self.log and self.low < 1:
            return "a range from 1 on, because it is logarithmic"
        if not 1 <= self.step <= self.high - self.low or (self.log and self.step != 1):
            return "a range with a step from 1 on that fits into it (1, where it is logarithmic)"
        return None

    def suggest(self, trial: Any, name: str) -> int:
        return int(trial.suggest_int(name, self.low, self.high, log=self.log, step=self.step))

    def grid(self) -> list[Any] | None:
        return None if self.log else list(range(self.low, self.high + 1, self.step))


@dataclass(frozen=True)
class Choice(Parameter):
    """One of `values`, which may be of any kind that JSON knows, lists too."""

    values: Sequence[Any]

    def problem(self) -> str | None:
        if len(self.values) == 0:
            return "a choice of at least one value"
        try:
            labels = self.labels
        except TypeError:
            return "a choice of values that JSON knows: numbers, texts, truth values, None, lists, dictionaries"
        return None if len(set(labels)) == len(labels) else "a choice of values that differ"

    @property
    def labels(self) -> list[str]:
        """What Optuna gets to see: it knows no lists, and takes 1, 1.0 and True for one value."""
        return [value if isinstance(value, str) else json.dumps(value) for value in self.values]

    def suggest(self, trial: Any, name: str) -> Any:
        labels = self.labels
        return self.values[labels.index(trial.suggest_categorical(name, labels))]

    def grid(self) -> list[Any] | None:
        return list(self.labels)


class Space:
    """All hyperparameters of a search. `names` are those that can be tried, as far as that is known before a trial."""

    def __init__(self, wish: SpaceChoice) -> None:
        self._function = wish if callable(wish) else None
        self.parameters: dict[str, Parameter] = {}
        if isinstance(wish, Mapping):
            if not wish:
                raise OptionError("space", {}, "a hyperparameter or more, such as {'alpha': LogFloat(1e-4, 1)}")
            self.parameters = {str(name): as_parameter(name, value) for name, value in wish.items()}
        elif self._function is None:
            raise OptionError(
                "space", type(wish).__name__, "a dictionary of names and ranges, or a function of a trial"
            )

    @property
    def names(self) -> list[str]:
        return list(self.parameters)

    def suggest(self, trial: Any) -> dict[str, Any]:
        """The hyperparameters of one trial, by name."""
        if self._function is None:
            return {name: parameter.suggest(trial, name) for name, parameter in self.parameters.items()}
        try:
            found = self._function(trial)
        except ValueError as error:  # Optuna's, about an impossible range
            raise UserError(f"The space cannot be tried: {error}") from error
        return dict(trial.params if found is None else found)

    def grid(self) -> dict[str, list[Any]]:
        """Every value of every hyperparameter, as Optuna knows it."""
        if self._function is not None:
            raise OptionError("sampler", "grid", "another one where the space is a function: it has no grid")
        found: dict[str, list[Any]] = {}
        for name, parameter in self.parameters.items():
            values = parameter.grid()
            if values is None:
                raise OptionError(f"space[{name!r}]", parameter, "a Choice, an Int, or a Float with a step, for a grid")
            found[name] = values
        return found

    def to_json(self) -> dict[str, str] | str:
        """A text for each hyperparameter, which differs where its range does."""
        if self._function is not None:
            return "a function"
        return {name: repr(parameter) for name, parameter in self.parameters.items()}


def as_parameter(name: str, value: Any) -> Parameter:
    """A `Parameter` as it is, and a list as a `Choice`; impossible ranges are refused with their name."""
    if isinstance(value, (list, tuple)):
        value = Choice(list(value))
    if not isinstance(value, Parameter):
        raise OptionError(f"space[{name!r}]", value, "Float, LogFloat, Int, Choice, or a list of values")
    problem = value.problem()
    if problem is not None:
        raise OptionError(f"space[{name!r}]", value, problem)
    return value
