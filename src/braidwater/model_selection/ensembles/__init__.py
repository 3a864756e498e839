"""The best trials of a study as one model."""

from braidwater.model_selection.ensembles.building import ensemble_of
from braidwater.model_selection.ensembles.model import TrialEnsemble
from braidwater.model_selection.ensembles.selection import Selection, greedy_selection

__all__ = ["Selection", "TrialEnsemble", "ensemble_of", "greedy_selection"]
