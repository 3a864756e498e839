"""Pictures parted into regions, one for each worker."""

from __future__ import annotations

from braidwater.planner.base import Layer
from braidwater.planner.strategies.base import (
    FORWARD,
    Net,
    Options,
    Place,
    Price,
    StrategyCost,
    held,
    ring_share,
)


class SpatialCost(StrategyCost):
    """kappa (t_rest(B) + t_regions(B) / n) + halos + an all-gather of the last maps + an all-reduce of the gradients.

    Each convolution passes the rows at its borders on, forward and backward; the gradients of its weights are summed over
    the regions.
    """

    name = "spatial"
    why = "each worker holds some rows of every picture, and passes those at its borders on"
    formula = "B times the halos (up to 2 borders) and 1/n of the last maps, and 2 (n - 1)/n P"

    needs = "the net has no convolution over rows of pictures"

    def is_possible(self, layers: tuple[Layer, ...]) -> bool:
        return any(layer.regions for layer in layers)

    def undisturbed(self, net: Net, place: Place, workers: int, options: Options) -> Price:
        rows = net.step_rows
        share, _ = net.part("regions")
        compute = net.seconds(rows, calls=0) * (1 - share + share / workers) + net.call_seconds
        borders = min(workers - 1, 2)
        crossing = [layer for layer in net.layers if layer.halo]
        halo = rows * borders * sum(layer.halo for layer in crossing)
        whole = rows * [layer for layer in net.layers if layer.regions][-1].output  # what comes next needs whole maps
        buckets = place.buckets(net.weights)
        reducing = place.all_reduce(net.weights, workers, buckets)
        hidden = (1 - FORWARD) * compute
        exchange = (
            place.all_gather(whole, workers, transport=place.transport)
            + place.send(halo, 2 * borders * len(crossing), place.transport)
            + place.meeting(compute)
            + place.exposed(reducing, hidden, buckets)
        )
        memory = held(net, rows)
        memory["activations"] = int(memory["activations"] * (1 - share + share / workers))
        return Price(
            compute + net.update_seconds,
            exchange,
            halo + ring_share(workers) * (whole + 2 * net.weights),
            memory,
            workers,
        )
