"""Layers parted over workers that all compute on the same rows."""

from __future__ import annotations

from typing import Any, ClassVar

from braidwater.planner.base import Layer
from braidwater.planner.strategies.base import Net, Options, Place, Price, StrategyCost, held, ring_share


class TensorParallelCost(StrategyCost):
    """kappa (t_whole(B) + t_parted(B) / n) + alpha messages + beta bytes.

    Shoeybi et al. 2019 (Megatron-LM, arXiv 1909.08053): a pair of linear layers sums up its outputs forward, the gradients
    of its inputs backward; so does an attention.
    """

    name = "tensor_parallel"
    why = "each worker holds a part of every large layer, all compute on the same rows"
    formula = "2 (n - 1)/n B times the outputs and inputs of each pair of layers"
    needs = "the net has no linear layer, embedding or attention to part"
    defaults: ClassVar[dict[str, Any]] = {"plan": "auto"}

    def is_possible(self, layers: tuple[Layer, ...]) -> bool:
        return any(layer.parted for layer in layers)

    def undisturbed(self, net: Net, place: Place, workers: int, options: Options) -> Price:
        rows = net.step_rows
        share, parted = net.part("parted")
        whole = net.weights - parted
        own = whole + parted / workers
        # what starting a layer costs does not shrink with it
        compute = net.seconds(rows, calls=0) * (1 - share + share / workers) + net.call_seconds
        update = net.update_seconds * own / net.weights if net.weights else 0.0
        size = rows * sum(layer.exchanged for layer in net.layers)
        messages = sum(layer.messages for layer in net.layers)
        memory = held(net, rows, own)
        outputs = sum(layer.output for layer in net.layers) or 1
        inside = sum(layer.output for layer in net.layers if layer.parted_output)
        memory["activations"] = int(memory["activations"] * (1 - (1 - 1 / workers) * inside / outputs))
        return Price(
            compute + update,
            place.all_reduce(size, workers, messages, place.transport) + place.meeting(compute),
            2 * ring_share(workers) * size,
            memory,
            workers,
            rows=rows,
        )
