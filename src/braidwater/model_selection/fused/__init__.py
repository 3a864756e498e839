"""Many models in the same passes over the same rows."""

from braidwater.model_selection.fused.circular import CircularScan
from braidwater.model_selection.fused.fitting import FittedModels, ManyPlan, explain_many, fit_many

__all__ = ["CircularScan", "FittedModels", "ManyPlan", "explain_many", "fit_many"]
