"""Engines: places where work runs over a table that lies there."""

from braidwater.engines.addressed import engine_at
from braidwater.engines.base import Capabilities, Engine, Member, Outcome, RunningTasks, Task
from braidwater.engines.facts import segments
from braidwater.engines.local import LocalEngine

__all__ = [
    "Capabilities",
    "Engine",
    "LocalEngine",
    "Member",
    "Outcome",
    "RunningTasks",
    "Task",
    "default_engine",
    "engine_at",
    "segments",
]


def default_engine() -> Engine:
    """The engine that is used where none is named: this machine."""
    return LocalEngine()
