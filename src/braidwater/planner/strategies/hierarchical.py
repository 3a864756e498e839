"""All-reduce inside groups, averages between them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from braidwater.planner.strategies.all_reduce import AllReduceCost
from braidwater.planner.strategies.base import Net, Options, Place, Price, StrategyCost, ring_share


class HierarchicalCost(StrategyCost):
    """An all-reduce over the g workers of a group in every step, and one over the G groups every k."""

    name = "hierarchical"
    exact = False
    laid_out = True
    why = "groups of workers step as one, their weights are averaged now and then"
    formula = "2 (g - 1)/g P in groups of g, and 2 (G - 1)/G P / k between G groups"
    defaults: ClassVar[dict[str, Any]] = {"groups": 2, "group_size": 2, "every": 8, "optimizer_state": "local"}

    def told(self, options: Options) -> str:
        return f"{options['groups']} groups of {options['group_size']}, every {options['every']} steps"

    def for_workers(self, options: Options, workers: int) -> Options:
        size = int(options.get("group_size", self.defaults["group_size"]))
        return {**options, "groups": max(workers // size, 1)}

    def undisturbed(self, net: Net, place: Place, workers: int, options: Options) -> Price:
        groups, size, every = options["groups"], options["group_size"], options["every"]
        if groups * size != workers:
            return Price(0.0, refused="say how many groups of how many: Hierarchical(groups=2, group_size=2)")
        group = replace(net, step_rows=max(net.step_rows // groups, 1))
        found = AllReduceCost().undisturbed(group, place, size, {**AllReduceCost.defaults, "transport": "gloo"})
        weights = net.weights * (1 + net.moments * (options["optimizer_state"] == "average"))
        return replace(
            found,
            exchange=found.exchange + place.all_reduce(weights, groups) / every,
            sent=found.sent + 2 * ring_share(groups) * weights / every,
            busy=workers,
        )
