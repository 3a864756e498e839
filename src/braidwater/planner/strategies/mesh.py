"""Data x pipeline x spatial x tensor: workers as a grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any, ClassVar

from braidwater.planner.strategies.all_reduce import AllReduceCost
from braidwater.planner.strategies.base import FORWARD, Net, Options, Place, Price, StrategyCost, ring_share
from braidwater.planner.strategies.pipeline import PipelineCost
from braidwater.planner.strategies.spatial import SpatialCost
from braidwater.planner.strategies.tensor_parallel import TensorParallelCost

_PARTING: Mapping[str, StrategyCost] = {
    "tensor": TensorParallelCost(),
    "spatial": SpatialCost(),
    "pipeline": PipelineCost(),
}


class MeshCost(StrategyCost):
    """The inner strategies' step on B / d rows, and an all-reduce of its worker's part of the gradients over d replicas.

    Narayanan et al. 2021 ("Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM", arXiv
    2104.04473), section 3.
    """

    name = "mesh"
    laid_out = True
    why = "workers as a grid: replicas of a net that is itself spread over workers"
    formula = "those of its parts on B / d rows, and 2 (d - 1)/d of its part of P"
    defaults: ClassVar[dict[str, Any]] = {"data": 1, "pipeline": 1, "spatial": 1, "tensor": 1}

    def told(self, options: Options) -> str:
        return " x ".join(f"{count} {axis}" for axis, count in _ways(options).items() if count > 1)

    def for_workers(self, options: Options, workers: int) -> Options:
        inner = prod(count for axis, count in _ways({**self.defaults, **options}).items() if axis != "data")
        return {**options, "data": max(workers // inner, 1)}

    def undisturbed(self, net: Net, place: Place, workers: int, options: Options) -> Price:
        ways = _ways(options)
        if prod(ways.values()) != workers:
            return Price(0.0, refused="say how many workers go along which axis: Mesh(data=2, tensor=2)")
        data = ways.pop("data")
        part = replace(net, step_rows=max(net.step_rows // data, 1))
        inside = [axis for axis, count in ways.items() if count > 1]
        if not inside:
            return AllReduceCost().undisturbed(net, place, workers, AllReduceCost.defaults)
        prices = [_inner(axis, part, place, ways[axis], options) for axis in inside]
        refused = next((price for price in prices if price.refused), None)
        if refused is not None:
            return refused
        found = prices[0]
        for price, axis in zip(prices[1:], inside[1:], strict=True):
            found = _inside(found, price, part, ways[axis])
        own = found.memory["weights"] / (2 + net.moments)
        buckets = place.buckets(own)
        talk = place.exposed(place.all_reduce(own, data, buckets), (1 - FORWARD) * found.compute, buckets)
        return replace(
            found,
            exchange=found.exchange + talk,
            sent=found.sent + 2 * ring_share(data) * own,
            busy=found.busy * data,
            rows=found.rows or part.step_rows,
        )


def _ways(options: Options) -> dict[str, int]:
    """Workers along each axis, which are given as a number or as a strategy."""
    found = {axis: options[axis] for axis in MeshCost.defaults}
    return {axis: value if isinstance(value, int) else value.workers for axis, value in found.items()}


def _inner(axis: str, net: Net, place: Place, workers: int, options: Options) -> Price:
    cost = _PARTING[axis]
    if not cost.is_possible(net.layers):
        return Price(0.0, refused=cost.needs)
    own = {name: getattr(options[axis], name, default) for name, default in cost.defaults.items()}
    return cost.undisturbed(net, place, workers, own)


def _inside(first: Price, second: Price, net: Net, ways: int) -> Price:
    """Both ways to part a net at once: times and memory shrink by the product, messages add up."""
    alone = net.seconds(net.step_rows) + net.update_seconds
    whole = {"weights": net.state, "activations": net.step_rows * net.activations}
    memory = {name: int(size * second.memory[name] / max(whole[name], 1)) for name, size in first.memory.items()}
    return replace(
        first,
        compute=first.compute * second.compute / alone,
        exchange=first.exchange / ways + second.exchange,
        sent=first.sent / ways + second.sent,
        memory=memory,
        busy=first.busy * second.busy,
    )
