"""Which configurations are tried: the grids of `compile_params` and `fit_params`, as MADlib writes them."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from braidwater.errors import OptionError
from braidwater.model_selection.space import Choice, Float, Int, Parameter, as_parameter

_SCALES = ("linear", "log", "log_near_one")
_LIST = "optimizer_params_list"


@dataclass(frozen=True)
class Configuration:
    """A net to train: the number of its architecture, and its parameters as `torch_fit` takes them."""

    model_id: int
    compile_params: str
    fit_params: str


@dataclass(frozen=True)
class NearOne(Parameter):
    """A number below 1 from `low` to `high`, each power of ten of its distance to 1 tried as often."""

    low: float
    high: float

    def problem(self) -> str | None:
        return None if 0 <= self.low < self.high < 1 else "a range within 0 and 1"

    def suggest(self, trial: Any, name: str) -> float:
        return 1 - float(trial.suggest_float(name, 1 - self.high, 1 - self.low, log=True))

    def grid(self) -> list[Any] | None:
        return None


@dataclass(frozen=True)
class Grid:
    """The values to be tried: of the architectures, of each optimizer's parameters, of the rest of both texts."""

    model_ids: Sequence[int]
    compiled: Mapping[str, Parameter]
    optimizers: Sequence[Mapping[str, Parameter]]
    fitted: Mapping[str, Parameter]

    @staticmethod
    def of(model_ids: Sequence[int], compiled: str, fitted: str) -> Grid:
        """The grids of a call, the texts of dictionaries."""
        if not model_ids:
            raise OptionError("model_id_list", "{}", "an array of at least one model_id")
        plain = _read("compile_params_grid", compiled)
        nested = plain.pop(_LIST, [{}])
        if not isinstance(nested, list) or not nested or not all(isinstance(one, dict) for one in nested):
            raise OptionError("compile_params_grid", compiled, f"one whose {_LIST} is a list of dictionaries")
        return Grid(
            list(model_ids),
            _parameters("compile_params_grid", plain),
            [_parameters("compile_params_grid", one) for one in nested],
            _parameters("fit_params_grid", _read("fit_params_grid", fitted)),
        )

    def suggest(self, trial: Any) -> dict[str, Any]:
        """A configuration, drawn by a trial of Optuna's."""
        place = Choice(list(range(len(self.optimizers)))).suggest(trial, _LIST)
        found = self._configuration(
            Choice(self.model_ids).suggest(trial, "model_id"),
            {name: one.suggest(trial, name) for name, one in self.compiled.items()},
            {name: one.suggest(trial, f"{place} {name}") for name, one in self.optimizers[place].items()},
            {name: one.suggest(trial, name) for name, one in self.fitted.items()},
        )
        return vars(found)

    def all(self) -> list[Configuration]:
        """Every configuration of a grid of lists."""
        found = []
        for model_id, optimizer in product(self.model_ids, self.optimizers):
            for compiled, chosen, fitted in product(*map(_points, (self.compiled, optimizer, self.fitted))):
                found.append(self._configuration(model_id, compiled, chosen, fitted))
        return found

    def only(self, name: str, default: Any) -> Any:
        """The one value of a fit parameter, where all configurations have to agree."""
        values = self.fitted.get(name, Choice([default]))
        if not isinstance(values, Choice) or len(values.values) != 1:
            raise OptionError(
                "fit_params_grid", name, "one value: Hyperband grants iterations, which are alike for all"
            )
        return values.values[0]

    @staticmethod
    def _configuration(
        model_id: int, compiled: Mapping[str, Any], chosen: Mapping[str, Any], fitted: Mapping[str, Any]
    ) -> Configuration:
        compiled, chosen = dict(compiled), dict(chosen)
        name = chosen.pop("optimizer", None) or compiled.pop("optimizer", "adam")
        if isinstance(compiled.get("metrics"), str):
            compiled["metrics"] = [compiled["metrics"]]
        compiled |= {key: chosen.pop(key) for key in ("loss", "metrics") if key in chosen}
        if chosen:
            name = f"{name}({_written(chosen)})"
        return Configuration(model_id, _written({**compiled, "optimizer": name}), _written(fitted))


def _written(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


def _read(argument: str, text: str) -> dict[str, Any]:
    must_be = "a dictionary of lists, such as {'batch_size': [32, 64]}"
    try:
        found = ast.literal_eval(text.strip() or "{}")
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise OptionError(argument, text, must_be) from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise OptionError(argument, text, must_be)
    return found


def _parameters(argument: str, values: Mapping[str, Any]) -> dict[str, Parameter]:
    for name, value in values.items():
        if not isinstance(value, list) or not value:
            raise OptionError(
                f"{argument}[{name!r}]", value, "a list of values, or a range such as [1e-4, 1e-1, 'log']"
            )
    return {name: as_parameter(name, _parameter(value)) for name, value in values.items()}


def _parameter(value: list[Any]) -> Parameter:
    """A range where the list ends with a scale, else a choice."""
    if len(value) != 3 or value[2] not in _SCALES:
        return Choice(value)
    low, high, scale = value
    if scale == "log_near_one":
        return NearOne(low, high)
    if isinstance(low, int) and isinstance(high, int):
        return Int(low, high, log=scale == "log")
    return Float(float(low), float(high), log=scale == "log")


def _points(parameters: Mapping[str, Parameter]) -> list[dict[str, Any]]:
    for name, one in parameters.items():
        if not isinstance(one, Choice):
            raise OptionError(name, one, "a list of values: ranges are for hyperband and hyperopt")
    lists = [one.values for one in parameters.values() if isinstance(one, Choice)]
    return [dict(zip(parameters, values, strict=True)) for values in product(*lists)]
