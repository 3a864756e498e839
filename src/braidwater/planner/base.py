"""What a model tells the planner about itself, and what the planner answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Shape = Literal["aggregate", "gang", "tasks"]
Kernel = Literal["fused", "blas", "torch"]
Cache = Literal["none", "memory", "disk"]


@dataclass(frozen=True)
class Layer:
    """A layer of a net, in the order of the forward pass; sizes are bytes of one row unless said otherwise.

    `share` is its part of the time of forward and backward (all layers together: 1). `parameters` are the bytes of its weights,
    `output` those of its output. `sides` are rows and columns of its largest weight matrix (0 where there is none).

    Where the layer can be parted over tensor-parallel workers, `parted` is true (`parted_output`: each worker then holds its
    part of the output only), and `exchanged` is what an all-reduce of
    a forward and a backward pass sums up, in `messages` messages. Where it can be parted by regions of a picture,
    `regions` is true, and `halo` is what a border between two regions passes on, forward and backward together. A pipeline
    cannot cut inside a `block`; layers without one go with the layer before them.
    """

    name: str
    share: float
    parameters: int
    output: int
    sides: tuple[int, int] = (0, 0)
    parted: bool = False
    parted_output: bool = False
    exchanged: int = 0
    messages: int = 0
    regions: bool = False
    halo: int = 0
    block: str = ""


@dataclass(frozen=True)
class StepTimes:
    """Times of training steps that were measured on this machine with the module itself (seconds).

    On one core (the cores there are, shared by the workers) a step on r rows took ``call + r * row``, and the optimiser's step
    `update` more. `alone` is a whole step of one process with all cores.
    """

    call: float
    row: float
    update: float
    alone: float


@dataclass(frozen=True)
class Work:
    """Training as the planner sees it: figures, and no model.

    `passes` counts readings of the rows, the first included (an epoch of a deep net is a pass). `flops_per_row` is for one
    row in one pass, with or without the first. `row_bytes` is what a row takes in a block, `read_columns` what is read of
    the table. `state_bytes` is one partial state of an aggregate, or the weights that a gang's workers exchange.
    `step_rows` are the rows of an optimiser step over all workers (0: no steps inside a pass). `working_bytes` is what a
    worker holds beside blocks and states; of a gang what a step over all its rows keeps for its backward pass. `strategies`
    are those that the work can run under, best guess first; the aggregate shape has only ``("data",)``.

    Of nets: `layers` from the input to the output, `moments` (how many numbers the optimiser keeps for each weight),
    `half` (products are computed in 16 bits), `times` where steps were measured.
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
    models: int = 1  # how many models one scan trains; of a net, how many members it has
    layers: tuple[Layer, ...] = ()
    moments: int = 2
    half: bool = False
    times: StepTimes | None = None
