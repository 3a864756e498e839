"""Models by name: what the command line can train, and loading whichever model lies in a folder."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from braidwater.errors import ModelSchemaError, UserError
from braidwater.extras import needed_for

# names to the place of a class or factory: strings, so that knowing a name imports neither scikit-learn nor torch
ESTIMATORS = {
    "linear_regression": "braidwater.estimators:LinearRegression",
    "logistic_regression": "braidwater.estimators:LogisticRegression",
    "k_means": "braidwater.estimators:KMeans",
    "pca": "braidwater.estimators:PCA",
    "mlp": "braidwater.deep:mlp",
    "cnn": "braidwater.deep:cnn",
}

# what `load` makes of each kind of saved model
LOADERS = {
    **{name: place for name, place in ESTIMATORS.items() if "estimators" in place},
    **dict.fromkeys(("trainer", "mlp", "cnn"), "braidwater.deep:Trainer"),
    "grouped": "braidwater.model_selection:GroupedModel",
    "grouped_trainers": "braidwater.model_selection:GroupedTrainers",
    "trial_ensemble": "braidwater.model_selection:TrialEnsemble",
}


class UnknownEstimatorError(UserError):
    """No estimator has this name.

    >>> print(UnknownEstimatorError("logistic_regresion"))
    There is no estimator 'logistic_regresion'. Did you mean 'logistic_regression'?
    """

    def __init__(self, name: str) -> None:
        near = get_close_matches(name, ESTIMATORS, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(ESTIMATORS)}."
        super().__init__(f"There is no estimator {name!r}. {hint}")


def estimator(name: str) -> Callable[..., Any]:
    """The class or factory of the estimator `name`, imported now."""
    if name not in ESTIMATORS:
        raise UnknownEstimatorError(name)
    found: Callable[..., Any] = find(ESTIMATORS[name])
    return found


def load(path: str | Path, **options: Any) -> Any:
    """The model in the folder `path`, of whichever kind it is. `options` go to the ``load`` of its class.

    Raises `ModelFileError` and the errors below it when the model cannot be trusted or read.
    """
    from braidwater.saving import load_model

    kind = load_model(path).kind
    if kind not in LOADERS:
        raise ModelSchemaError(f"The model in {str(path)!r} is of kind {kind!r}, which this version does not know.")
    return find(LOADERS[kind]).load(path, **options)


def find(place: str) -> Any:
    """The object at ``package.module:Name``, imported now; what cannot be found is a user's mistake."""
    module, _, name = place.partition(":")
    if not module or not name:
        raise UserError(f"{place!r} names nothing to import; write it as package.module:Name.")
    try:
        with needed_for(place):
            return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise UserError(f"{place!r} cannot be imported: {error}.") from error
    except AttributeError as error:
        raise UserError(f"Module {module!r} has no {name!r}.") from error
