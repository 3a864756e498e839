"""What people see of a training: plans, progress, logs, reports; and loading a model of any kind."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from braidwater.report.explaining import explain as explain
    from braidwater.report.html import Report as Report
    from braidwater.report.log import log_events as log_events
    from braidwater.report.models import load as load
    from braidwater.report.progress_views import progress as progress
    from braidwater.report.record import Record as Record
    from braidwater.report.tensorboard import TensorBoard as TensorBoard

_HOMES = {
    "Record": "record",
    "Report": "html",
    "TensorBoard": "tensorboard",
    "explain": "explaining",
    "load": "models",
    "log_events": "log",
    "progress": "progress_views",
}

__all__ = ["Record", "Report", "TensorBoard", "explain", "load", "log_events", "progress"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
