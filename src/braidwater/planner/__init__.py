"""The planner: what a training will cost, how to run it best, and what it came to.

The names below are loaded when they are first used: those who only want the machine's constants need none of the formulas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from braidwater.planner.base import Layer as Layer
    from braidwater.planner.base import StepTimes as StepTimes
    from braidwater.planner.base import Work as Work
    from braidwater.planner.constants import REFERENCE as REFERENCE
    from braidwater.planner.constants import Machine as Machine
    from braidwater.planner.constants import machine as machine
    from braidwater.planner.constants import stored_machine as stored_machine
    from braidwater.planner.in_place import gang_or_in_place as gang_or_in_place
    from braidwater.planner.plan import plan as plan
    from braidwater.planner.plan import plan_table as plan_table
    from braidwater.planner.strategies import COSTS as COSTS
    from braidwater.planner.tree import Choice as Choice
    from braidwater.planner.tree import Chosen as Chosen
    from braidwater.planner.tree import Node as Node
    from braidwater.planner.tree import Plan as Plan
    from braidwater.planner.tree import Rejected as Rejected
    from braidwater.planner.tree import format_seconds as format_seconds

_HOMES = {
    "base": ("Layer", "StepTimes", "Work"),
    "constants": ("REFERENCE", "Machine", "machine", "stored_machine"),
    "in_place": ("gang_or_in_place",),
    "plan": ("plan", "plan_table"),
    "strategies": ("COSTS",),
    "tree": ("Choice", "Chosen", "Node", "Plan", "Rejected", "format_seconds"),
}

__all__ = sorted(name for names in _HOMES.values() for name in names)


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            module = import_module(f"{__name__}.{home}")
            # kept: the import has just put the module `plan` in the place of the function
            globals().update({each: getattr(module, each) for each in names})
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
