"""Strategies whose workers step on their own and meet now and then: averaging, DiLoCo, elastic averaging."""

from __future__ import annotations

from typing import Any, ClassVar

from braidwater.planner.strategies.base import Net, Options, Place, Price, StrategyCost, held, ring_share


class AveragingCost(StrategyCost):
    """kappa t(B/n) + (alpha + beta P) / k; within 20 % of what was measured for k = 8."""

    name = "averaging"
    exact = False
    why = "each worker trains on its share, the weights are averaged"
    formula = "2 (n - 1)/n P / k for an average every k steps"
    defaults: ClassVar[dict[str, Any]] = {"every": "epoch", "optimizer_state": "local", "warmup": 0}

    def told(self, options: Options) -> str:
        every = options["every"]
        return "every epoch" if every == "epoch" else f"every {every} steps" if every > 1 else "every step"

    def undisturbed(self, net: Net, place: Place, workers: int, options: Options) -> Price:
        every = options["every"]
        size = net.weights * (1 + net.moments * (options["optimizer_state"] == "average"))
        if every == "epoch" and place.one_machine and not options["warmup"]:
            return _in_threads(net, place, workers, size)
        period = net.epoch_steps if every == "epoch" else every
        return local_steps(net, place, workers, size, period)


def _in_threads(net: Net, place: Place, workers: int, size: float) -> Price:
    """An aggregate: the workers are threads of one process, whose interpreter takes one of them at a time."""
    rows = net.step_rows / workers
    compute = net.seconds(rows, calls=workers) + net.update_seconds
    merging = workers * place.pass_over(size) / net.epoch_steps
    return Price(compute, merging, 0.0, held(net, rows), workers, starts=False)


def local_steps(net: Net, place: Place, workers: int, size: float, period: float, copies: int = 0) -> Price:
    """Steps of each worker on its own part of a step's rows; every `period` of them an all-reduce of `size` bytes.

    `copies` of the weights are kept beside the state.
    """
    rows = net.step_rows / workers
    compute = net.seconds(rows)
    memory = held(net, rows) | {"copies of the weights": copies * net.weights}
    return Price(
        compute + net.update_seconds,
        (place.all_reduce(size, workers) + place.meeting(period * compute)) / period,
        2 * ring_share(workers) * size / period,
        memory,
        workers,
    )


class DiLoCoCost(StrategyCost):
    """kappa t(B/n) + (alpha F + beta P + outer step) / H, with F fragments."""

    name = "diloco"
    exact = False
    why = "each worker takes many steps of its own, then all take one outer step along the mean of how far they went"
    formula = "2 (n - 1)/n P / H for an outer step every H steps"
    defaults: ClassVar[dict[str, Any]] = {
        "every": 100,
        "outer_learning_rate": 0.7,
        "outer_momentum": 0.9,
        "fragments": 1,
        "delay": 0,
        "mixing": 0.0,
    }

    def told(self, options: Options) -> str:
        return f"every {options['every']} steps"

    def undisturbed(self, net: Net, place: Place, workers: int, options: Options) -> Price:
        found = local_steps(net, place, workers, net.weights, options["every"], copies=2)
        more = place.all_reduce(0, workers, options["fragments"] - 1) + 3 * place.pass_over(net.weights)
        exchange = found.exchange + more / options["every"]
        return Price(found.compute, exchange, found.sent, found.memory, found.busy)


class ElasticAveragingCost(StrategyCost):
    """kappa t(B/n) + (alpha + beta P) / tau; asynchronous: a message to the centre and one back."""

    name = "elastic_averaging"
    exact = False
    why = "workers explore on their own, held to a common centre by a spring"
    formula = "2 (n - 1)/n P / tau; asynchronous: 2 P / tau"
    defaults: ClassVar[dict[str, Any]] = {"every": 10, "moving_rate": 0.9, "asynchronous": False}

    def told(self, options: Options) -> str:
        return f"every {options['every']} steps" + (", asynchronous" if options["asynchronous"] else "")

    def undisturbed(self, net: Net, place: Place, workers: int, options: Options) -> Price:
        every = options["every"]
        found = local_steps(net, place, workers, net.weights, every, copies=1)
        if not options["asynchronous"]:
            return found
        exchange = 2 * place.send(net.weights) / every
        return Price(found.compute, exchange, 2 * net.weights / every, found.memory, found.busy)
