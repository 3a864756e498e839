"""Workers that push gradients to servers and pull weights from them."""

from __future__ import annotations

from typing import Any, ClassVar

from braidwater.planner.strategies.base import Net, Options, Place, Price, StrategyCost, held


class ParameterServerCost(StrategyCost):
    """max(kappa t(B/n) + pushes and pulls, what all of them are on a server's line).

    A step's push and pull are P each, divided by how seldom they happen; a server handles 1/s of the weights for all
    workers, one message after the other.
    """

    name = "parameter_server"
    exact = False
    why = "workers push gradients and pull weights when they are ready, and wait for nobody"
    formula = "P / k_push pushed, P / k_pull pulled"
    defaults: ClassVar[dict[str, Any]] = {"servers": 1, "push_every": 1, "pull_every": 1, "staleness": None}

    def told(self, options: Options) -> str:
        servers = options["servers"]
        return f"{servers} server{'s' if servers > 1 else ''}"

    def undisturbed(self, net: Net, place: Place, workers: int, options: Options) -> Price:
        rows = net.step_rows / workers
        pushed, pulled = net.weights / options["push_every"], net.weights / options["pull_every"]
        own = place.send(pushed) / options["push_every"] + place.send(pulled) / options["pull_every"]
        compute = net.seconds(rows)
        updates = net.update_seconds / options["push_every"]
        server = workers * (own + updates) / options["servers"]
        exchange = max(own, server - compute)
        memory = held(net, rows) | {"servers": int((1 + net.moments) * net.weights / workers)}
        return Price(compute, exchange, pushed, memory, workers, others=options["servers"])
