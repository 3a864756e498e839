"""Stopping trials in the middle, by the rule of one of Optuna's pruners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from braidwater.model_selection.base import Scheduler


@dataclass(frozen=True)
class Pruning(Scheduler):
    """Each report of the metric is shown to `pruner`; a trial that it finds hopeless is stopped right there, for good."""

    name: ClassVar[str] = "pruner"
    pruner: Any

    @staticmethod
    def by_name(name: str) -> Pruning:
        """``median`` stops a trial below the median of those before it; ``wilcoxon`` one that is worse than the best for sure."""
        import warnings

        from optuna import pruners
        from optuna.exceptions import ExperimentalWarning

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return Pruning(pruners.MedianPruner() if name == "median" else pruners.WilcoxonPruner())

    def stops(self, study: Any, trial: Any) -> bool:
        return bool(self.pruner.prune(study, trial))
