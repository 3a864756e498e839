"""The planner: what a training will cost, how to run it best, and what it came to."""

from braidwater.planner.base import Layer, StepTimes, Work
from braidwater.planner.constants import REFERENCE, Machine, machine, stored_machine
from braidwater.planner.in_place import gang_or_in_place
from braidwater.planner.plan import plan, plan_table
from braidwater.planner.strategies import COSTS
from braidwater.planner.tree import Choice, Chosen, Node, Plan, Rejected, format_seconds

__all__ = [
    "COSTS",
    "REFERENCE",
    "Choice",
    "Chosen",
    "Layer",
    "Machine",
    "Node",
    "Plan",
    "Rejected",
    "StepTimes",
    "Work",
    "format_seconds",
    "gang_or_in_place",
    "machine",
    "plan",
    "plan_table",
    "stored_machine",
]
