"""Metrics of validation rows, from torchmetrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from braidwater.deep.losses import Target
from braidwater.errors import OptionError
from braidwater.extras import needed_for

CLASS_METRICS = {
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1Score",
    "auroc": "AUROC",
    "calibration_error": "CalibrationError",
}
NUMBER_METRICS = {"r2": "R2Score", "mae": "MeanAbsoluteError", "mse": "MeanSquaredError"}


@dataclass(frozen=True)
class MetricPlan:
    """Makes the metrics `names` for one evaluation: torchmetrics objects, averaged over classes by torchmetrics' rules."""

    names: tuple[str, ...]
    target: Target
    classes: int

    def __call__(self) -> dict[str, Any]:
        import torchmetrics

        table = CLASS_METRICS if self.target == "class" else NUMBER_METRICS
        arguments: dict[str, Any] = (
            {"task": "multiclass", "num_classes": self.classes} if self.target == "class" else {}
        )
        return {name: getattr(torchmetrics, table[name])(**arguments) for name in self.names}


def find_metrics(names: Sequence[str], target: Target, classes: int) -> MetricPlan | None:
    """The metrics that were asked for, checked before anything runs."""
    known = CLASS_METRICS if target == "class" else NUMBER_METRICS
    for name in names:
        if name not in known:
            raise OptionError("metrics", name, f"one of {', '.join(known)} where the label is a {target}")
    if not names:
        return None
    with needed_for("Metrics of a net"):
        import torchmetrics  # noqa: F401
    return MetricPlan(tuple(names), target, classes)
