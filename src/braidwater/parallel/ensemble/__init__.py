"""Ensembles: several models trained independently, which answer together."""

from braidwater.parallel.ensemble.module import EnsembleModule
from braidwater.parallel.ensemble.strategy import Ensemble

__all__ = ["Ensemble", "EnsembleModule"]
