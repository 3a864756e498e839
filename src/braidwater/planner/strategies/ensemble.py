"""Members that are trained on their own and combined at the end."""

from __future__ import annotations

from math import ceil
from typing import Any, ClassVar

from braidwater.planner.strategies.base import Net, Options, Place, Price, StrategyCost, held


class EnsembleCost(StrategyCost):
    """kappa t(B) of a member, times the members that a worker trains, on the rows that a member sees.

    The figures of the net are those of all members together.
    """

    name = "ensemble"
    exact = False
    why = "each member is trained on its own, their predictions are combined"
    formula = "0"
    defaults: ClassVar[dict[str, Any]] = {"data": "parts", "held_out": 0.2}

    def told(self, options: Options) -> str:
        return str(options["data"])

    def undisturbed(self, net: Net, place: Place, workers: int, options: Options) -> Price:
        members = net.models
        if members < 2:
            return Price(0.0, refused="the module has no members; braidwater.deep.ensemble makes one that has")
        step = (net.seconds(net.step_rows) + net.update_seconds) / members
        # a member over parts takes its part of the steps; one over bags or all rows takes all of them
        steps = ceil(members / workers) / (members if options["data"] == "parts" else 1)
        memory = held(net, net.step_rows / members, net.weights / members)
        return Price(step * steps, 0.0, 0.0, memory, workers, rows=net.step_rows)
