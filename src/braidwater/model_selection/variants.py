"""A model with other hyperparameters: of estimators, trainers, and whatever a function of the parameters makes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Protocol, runtime_checkable

from braidwater.errors import OptionError, UserError

_NESTED = ("module_arguments", "optimizer_arguments")


@runtime_checkable
class SeveralFits(Protocol):
    """One of several models that trials fit with arguments of their own: `model` with `arguments`, out of `fits`."""

    model: Any
    arguments: Mapping[str, Any]
    fits: Sequence[tuple[Any, Mapping[str, Any]]]


def is_trainer(model: Any) -> bool:
    """Whether it is trained by epochs and can go on from a checkpoint."""
    return hasattr(model, "make_training") and hasattr(model, "checkpoint") and hasattr(model, "epochs")


def is_made(model: Any) -> bool:
    """Whether `model` is a function that makes models of parameters."""
    return callable(model) and not is_trainer(model) and not hasattr(model, "fit")


def variant(model: Any, parameters: Mapping[str, Any]) -> Any:
    """An unfitted model like `model` with other hyperparameters.

    A trainer's are its settings, ``module_arguments.NAME`` and ``optimizer_arguments.NAME``; the NAME alone is enough where
    no setting is called so. An estimator's are its parameters, nested ones as ``step__NAME`` or ``step.NAME``. A function
    gets the parameters as a dictionary.
    """
    if is_made(model):
        return model(dict(parameters))
    if is_trainer(model):
        return _trainer(model, parameters)
    from sklearn.base import clone

    given = fit_arguments(model, parameters)
    changed = {name.replace(".", "__"): value for name, value in parameters.items() if name not in given}
    return clone(model).set_params(**changed)


def fit_arguments(model: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Those hyperparameters that are no settings of the model but go to its ``fit``: the columns that it learns from."""
    if is_made(model) or "features" not in parameters or not _takes_features(model):
        return {}
    return {"features": parameters["features"]}


def _takes_features(model: Any) -> bool:
    known = _trainer_names(model) if is_trainer(model) else model.get_params(deep=False)
    return "features" not in known and "features" in inspect.signature(model.fit).parameters


def check_names(model: Any, names: Sequence[str]) -> None:
    """Refuse hyperparameters that the model does not have, with the nearest name."""
    if is_made(model):
        return
    known = _trainer_names(model) if is_trainer(model) else list(model.get_params(deep=True))
    known += ["features"] * _takes_features(model)
    open_ended = tuple(f"{nested}." for nested in _NESTED) if is_trainer(model) else ()
    for name in names:
        plain = name if is_trainer(model) else name.replace(".", "__")
        if plain not in known and not plain.startswith(open_ended or ("\0",)):
            near = get_close_matches(plain, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(known)}."
            raise UserError(f"{_name(model)} has no hyperparameter {name!r}. {hint}")


def default_metric(model: Any, validated: bool) -> str:
    """What is compared where nobody says: the loss, on the rows held out where there are some."""
    if is_trainer(model):
        return "validation_loss" if validated else "loss"
    target = getattr(model, "target", None)
    if target not in ("class", "number"):
        raise OptionError("metric", None, f"the name of a figure of {_name(model)}, such as 'accuracy' or 'inertia'")
    return "log_loss" if target == "class" else "rmse"


def trainer_settings(trainer: Any) -> dict[str, Any]:
    """The arguments that make a trainer like this one."""
    settings = {name: getattr(trainer, name) for name in _setting_names(trainer) if hasattr(trainer, name)}
    plan = trainer.optimizer
    return settings | {
        "optimizer": plan.optimizer,
        "learning_rate": plan.learning_rate,
        "optimizer_arguments": dict(plan.arguments),
        "freeze": plan.freeze,
        "groups": dict(plan.groups),
        "module_arguments": dict(trainer.module_arguments),
    }


@dataclass(frozen=True)
class Stretched:
    """The part of a learning rate's schedule that lies in the first `epochs` of `most`."""

    schedule: Callable[[int, int], float]
    epochs: int
    most: int

    def __call__(self, step: int, steps: int) -> float:
        return self.schedule(step, steps // self.epochs * self.most)


def _trainer(model: Any, parameters: Mapping[str, Any]) -> Any:
    settings = trainer_settings(model)
    given = fit_arguments(model, parameters)
    for name, value in parameters.items():
        if name in given:
            continue
        outer, _, inner = name.partition(".")
        if inner and outer in _NESTED:
            settings[outer] = {**settings[outer], inner: value}
        elif name in settings:
            settings[name] = value
        else:
            settings["module_arguments"] = {**settings["module_arguments"], name: value}
    return type(model)(**settings)


def _setting_names(model: Any) -> list[str]:
    """The parameters of a trainer's constructor."""
    return [name for name in inspect.signature(type(model).__init__).parameters if name != "self"]


def _trainer_names(model: Any) -> list[str]:
    inner = list(dict.fromkeys([*model.module_arguments, *_module_parameters(model.module)]))
    return [*_setting_names(model), *inner, *(f"module_arguments.{name}" for name in inner)]


def _module_parameters(module: Any) -> list[str]:
    """The parameters of a module's factory after the inputs and the outputs."""
    from braidwater.deep.building import import_factory

    factory = import_factory(module) if isinstance(module, str) else module
    if not hasattr(factory, "__name__"):  # a module that was given as it is
        return []
    return list(inspect.signature(factory).parameters)[2:]


def _name(model: Any) -> str:
    return str(getattr(model, "kind", type(model).__name__))
