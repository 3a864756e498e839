"""Searching over models: hyperparameters tried in parallel, each trial only as far as it is worth it.

::

    from braidwater.model_selection import Choice, LogFloat, search

    space = {"learning_rate": LogFloat(1e-4, 1e-1), "module_arguments.hidden": Choice([[32], [64, 32]])}
    study = search(Trainer(MLP, epochs=27), space, "flights.parquet", label="late", scheduler="asha")
    study.best_parameters, study.best_model()

The names below are loaded when they are first used. They need the extra ``search``: pip install 'braidwater[search]'.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from braidwater.extras import needed_for

if TYPE_CHECKING:
    from braidwater.model_selection.ablation import Ablation as Ablation
    from braidwater.model_selection.ablation import Columns as Columns
    from braidwater.model_selection.ablation import Layers as Layers
    from braidwater.model_selection.ablation import Setting as Setting
    from braidwater.model_selection.ablation import ablate as ablate
    from braidwater.model_selection.base import Budget as Budget
    from braidwater.model_selection.base import Scheduler as Scheduler
    from braidwater.model_selection.base import Trial as Trial
    from braidwater.model_selection.cross_validation import CrossValidated as CrossValidated
    from braidwater.model_selection.cross_validation import CrossValidation as CrossValidation
    from braidwater.model_selection.cross_validation import cross_validate as cross_validate
    from braidwater.model_selection.ensembles import TrialEnsemble as TrialEnsemble
    from braidwater.model_selection.explaining import SearchPlan as SearchPlan
    from braidwater.model_selection.explaining import explain_search as explain_search
    from braidwater.model_selection.folds import GroupKFold as GroupKFold
    from braidwater.model_selection.folds import KFold as KFold
    from braidwater.model_selection.folds import StratifiedKFold as StratifiedKFold
    from braidwater.model_selection.folds import TimeSeriesSplit as TimeSeriesSplit
    from braidwater.model_selection.fused import CircularScan as CircularScan
    from braidwater.model_selection.fused import FittedModels as FittedModels
    from braidwater.model_selection.fused import explain_many as explain_many
    from braidwater.model_selection.fused import fit_many as fit_many
    from braidwater.model_selection.group_tasks import GroupedTrainers as GroupedTrainers
    from braidwater.model_selection.groups import GroupedModel as GroupedModel
    from braidwater.model_selection.groups import fit_groups as fit_groups
    from braidwater.model_selection.hopper import Hopped as Hopped
    from braidwater.model_selection.hopper import hop as hop
    from braidwater.model_selection.live import watch as watch
    from braidwater.model_selection.schedulers import Hyperband as Hyperband
    from braidwater.model_selection.schedulers import PopulationBased as PopulationBased
    from braidwater.model_selection.schedulers import Pruning as Pruning
    from braidwater.model_selection.schedulers import SuccessiveHalving as SuccessiveHalving
    from braidwater.model_selection.searched import Searched as Searched
    from braidwater.model_selection.searching import search as search
    from braidwater.model_selection.space import Choice as Choice
    from braidwater.model_selection.space import Float as Float
    from braidwater.model_selection.space import Int as Int
    from braidwater.model_selection.space import LogFloat as LogFloat
    from braidwater.model_selection.study import Study as Study

_HOMES = {
    "Ablation": "ablation",
    "Budget": "base",
    "Choice": "space",
    "CircularScan": "fused",
    "Columns": "ablation",
    "CrossValidated": "cross_validation",
    "CrossValidation": "cross_validation",
    "FittedModels": "fused",
    "Float": "space",
    "GroupKFold": "folds",
    "GroupedModel": "groups",
    "GroupedTrainers": "group_tasks",
    "Hopped": "hopper",
    "Hyperband": "schedulers",
    "Int": "space",
    "KFold": "folds",
    "Layers": "ablation",
    "LogFloat": "space",
    "PopulationBased": "schedulers",
    "Pruning": "schedulers",
    "Scheduler": "base",
    "SearchPlan": "explaining",
    "Searched": "searched",
    "Setting": "ablation",
    "StratifiedKFold": "folds",
    "Study": "study",
    "SuccessiveHalving": "schedulers",
    "TimeSeriesSplit": "folds",
    "Trial": "base",
    "TrialEnsemble": "ensembles",
    "ablate": "ablation",
    "cross_validate": "cross_validation",
    "explain_many": "fused",
    "explain_search": "explaining",
    "fit_groups": "groups",
    "fit_many": "fused",
    "hop": "hopper",
    "search": "searching",
    "watch": "live",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needed_for(f"{__name__}.{name}"):
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
