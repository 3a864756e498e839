"""How good predictions are, in one pass over a table."""

from braidwater.metrics.evaluation import ClassEvaluation, NumberEvaluation

__all__ = ["ClassEvaluation", "NumberEvaluation"]
