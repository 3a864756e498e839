"""Data parallelism in which each worker keeps a part of the state (ZeRO, FSDP)."""

from __future__ import annotations

from typing import Any, ClassVar

from braidwater.planner.strategies.base import (
    FORWARD,
    Net,
    Options,
    Place,
    Price,
    StrategyCost,
    ring_share,
)


class ShardedCost(StrategyCost):
    """kappa t(B/n) + gathers of the weights + one reduce-scatter of the gradients.

    Rajbhandari et al. 2020 ("ZeRO", arXiv 1910.02054): stage 2 holds P of weights and 1/n of gradients and moments; stage
    3 holds 1/n of all, gathers each layer before its forward and again before its backward pass, and needs room for the
    largest one.
    """

    name = "sharded"
    why = "weights, gradients and the optimiser's state are spread over the workers; layers are gathered when they are needed"
    formula = "3 (n - 1)/n P; stage 2: 2 (n - 1)/n P"
    defaults: ClassVar[dict[str, Any]] = {"stage": 3, "offload": False, "min_parameters": 100_000}

    def told(self, options: Options) -> str:
        return f"stage {options['stage']}"

    def undisturbed(self, net: Net, place: Place, workers: int, options: Options) -> Price:
        rows = net.step_rows / workers
        stage = options["stage"]
        size = net.weights
        messages = sum(layer.parameters > 0 for layer in net.layers) or place.buckets(size)
        gathers = 2 if stage == 3 else 1
        gathering = gathers * place.all_gather(size, workers, messages)
        scattering = place.reduce_scatter(size, workers, messages)
        backward = (1 - FORWARD) * net.seconds(rows)
        exchange = place.exposed(gathering + scattering, backward, messages)
        largest = max((layer.parameters for layer in net.layers), default=size)
        whole = size if stage == 2 else min(2 * largest, size)  # weights and gradients of the layer that is at work
        own = (2 + net.moments if stage == 3 else 1 + net.moments) * size / workers
        return Price(
            net.seconds(rows) + net.update_seconds / workers,
            exchange,
            (gathers + 1) * ring_share(workers) * size,
            {"weights": int(whole + own), "activations": int(rows * net.activations)},
            workers,
        )
