"""What a model tells the planner about itself, and what the planner answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Shape = Literal["aggregate", "gang", "tasks"]
Kernel = Literal["fused", "blas", "torch"]
Cache = Literal["none", "memory", "disk"]


@dataclass(frozen=True)
class Work:
    """Training as the planner sees it: figures, and no model.

    `passes` counts readings of the rows, the first included (an epoch of a deep net is a pass). `flops_per_row` is for one
    row in one pass, with or without the first. `row_bytes` is what a row takes in a block, `read_columns` what is read of
    the table. `state_bytes` is one partial state of an aggregate, or the weights that a gang's workers exchange.
    `step_rows` are the rows of an optimiser step over all workers (0: no steps inside a pass). `working_bytes` is what a
    worker holds beside blocks and states (gradients, moments of the optimiser, activations). `strategies` are those that
    the work can run under, best guess first; the aggregate shape has only ``("data",)``.
    """

    name: str
    shape: Shape
    passes: int
    flops_per_row: float
    row_bytes: int
    read_columns: tuple[str, ...]
    state_bytes: int
    exact: bool = True
    kernel: Kernel = "blas"
    step_rows: int = 0
    working_bytes: int = 0
    strategies: tuple[str, ...] = ("data",)
    models: int = 1  # how many models one scan trains
