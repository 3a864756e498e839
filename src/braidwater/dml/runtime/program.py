"""A compiled block: instructions on slots, and which slots are dead after each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from braidwater.dml.hops import Hop
from braidwater.dml.plan.scan import Scan
from braidwater.dml.rewrites import Weighed

Kernel = Callable[[list[Any], Any], Sequence[Any]]


@dataclass(slots=True)
class Instruction:
    """One kernel or one scan. `run(values, context)` takes the values of the slots `inputs` and returns those of `outputs`.

    `frees` are slots that nobody reads afterwards. `hops` are the operators that it computes; the first gives errors a place.
    """

    name: str
    run: Kernel
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    hops: tuple[Hop, ...]
    frees: tuple[int, ...] = ()
    seconds: float = 0.0
    scan: Scan | None = None


@dataclass
class Program:
    """Instructions in order. Slots below `len(leaves)` hold what comes in: `leaves` are places in the block's order of hops.

    `roots` are the slots of the results; `constants` are literals with their slots.
    """

    instructions: list[Instruction]
    leaves: tuple[int, ...]
    constants: tuple[tuple[int, Any], ...]
    slots: int
    roots: tuple[int, ...]
    weighed: Weighed = field(default_factory=Weighed)
    before: float = 0.0
    after: float = 0.0
    root_hops: tuple[Hop, ...] = ()
