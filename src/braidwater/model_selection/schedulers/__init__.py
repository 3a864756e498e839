"""Who decides how far each trial is trained."""

from __future__ import annotations

from typing import Any

from braidwater.errors import OptionError
from braidwater.model_selection.base import Scheduler, ToTheEnd
from braidwater.model_selection.schedulers.hyperband import Hyperband
from braidwater.model_selection.schedulers.population_based import PopulationBased
from braidwater.model_selection.schedulers.pruning import Pruning
from braidwater.model_selection.schedulers.successive_halving import SuccessiveHalving

SCHEDULERS = ("asha", "hyperband", "median", "wilcoxon", "population_based")

__all__ = ["SCHEDULERS", "Hyperband", "PopulationBased", "Pruning", "SuccessiveHalving", "find_scheduler"]


def find_scheduler(wish: Any) -> Scheduler:
    """The scheduler that was asked for: None, a name, a `Scheduler`, or a pruner of Optuna's."""
    if wish is None:
        return ToTheEnd()
    if isinstance(wish, Scheduler):
        return wish
    if hasattr(wish, "prune"):
        return Pruning(wish)
    match wish:
        case "asha":
            return SuccessiveHalving()
        case "hyperband":
            return Hyperband()
        case "population_based":
            return PopulationBased()
        case "median" | "wilcoxon":
            return Pruning.by_name(wish)
    raise OptionError("scheduler", wish, f"None, one of {', '.join(SCHEDULERS)}, a scheduler, or an Optuna pruner")
