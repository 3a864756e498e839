"""Where a sequence of layers is cut into stages of nearly equal cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

REPEATS = 3  # the fastest counts


def balanced(costs: Sequence[float], stages: int) -> list[int]:
    """Where each stage after the first begins, so that the largest sum of costs within a stage is the smallest possible.

    Exact, by dynamic programming in O(len(costs)^2 stages). Every stage gets one layer at least.

    >>> balanced([1.0, 1.0, 1.0, 3.0, 2.0], 3)
    [3, 4]
    """
    total = len(costs)
    sums = [0.0]
    for cost in costs:
        sums.append(sums[-1] + cost)
    # best[end] is the largest stage when the first `end` layers make the stages so far
    best = list(sums)
    cuts: list[list[int]] = []
    for stage in range(2, stages + 1):
        found, where = [float("inf")] * (total + 1), [0] * (total + 1)
        for end in range(stage, total + 1):
            for begin in range(stage - 1, end):
                largest = max(best[begin], sums[end] - sums[begin])
                if largest < found[end]:
                    found[end], where[end] = largest, begin
        best = found
        cuts.append(where)
    begins, end = [], total
    for where in reversed(cuts):
        end = where[end]
        begins.append(end)
    return begins[::-1]


class Clock(fx.Interpreter):
    """Runs a traced module and times forward and backward of each of its nodes; keeps what each gives."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced, garbage_collect_values=False)
        self.seconds: dict[str, float] = {}
        self.values: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        begun = time.perf_counter()
        value = super().run_node(n)
        self.seconds[n.name] = time.perf_counter() - begun
        self.values[n.name] = value
        if n.op == "call_module" and isinstance(value, torch.Tensor) and value.grad_fn is not None:
            own = [p for p in self.fetch_attr(str(n.target)).parameters() if p.requires_grad]
            given: Any = self.map_nodes_to_values(n.args, n)
            inputs = [x for x in given if isinstance(x, torch.Tensor) and x.requires_grad]
            begun = time.perf_counter()
            torch.autograd.grad(value, [*inputs, *own], torch.ones_like(value), retain_graph=True, allow_unused=True)
            self.seconds[n.name] += time.perf_counter() - begun
        return value


def time_nodes(traced: fx.GraphModule, features: torch.Tensor) -> tuple[dict[str, float], dict[str, Any]]:
    """Seconds of each node for one micro-batch, forward and backward, and what each gives. The first run does not count."""
    clock = Clock(traced)
    clock.run(features)
    values, runs = clock.values, []
    for _ in range(REPEATS):
        clock = Clock(traced)
        clock.run(features)
        runs.append(clock.seconds)
    return {name: min(run[name] for run in runs) for name in runs[0]}, values
