"""One worker."""

from __future__ import annotations

from braidwater.planner.strategies.base import Net, Options, Place, Price, StrategyCost, held


class SingleCost(StrategyCost):
    """t: a step with its arithmetic spread over the cores."""

    name = "single"
    why = "one process, its threads inside each step"
    formula = "0"

    def undisturbed(self, net: Net, place: Place, workers: int, options: Options) -> Price:
        return Price(net.alone_seconds, memory=held(net, net.step_rows), starts=False)
