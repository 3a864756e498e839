"""What holds for one run of a script: options, output, random numbers, notes for EXPLAIN and statistics."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from braidwater.dml.values import is_streamed
from braidwater.options import current_options

if TYPE_CHECKING:
    from braidwater.engines import Engine


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


@dataclass
class Context:
    """The options and the state of one run.

    `memory` is bytes, `threads` bounds every operator. `strict` refuses what the reference implementation refuses though it
    could be done. `plain` runs every operator as it is written, without the optimiser. `show` receives each printed text.
    `directory` is where relative paths begin. `engine` scans tables and runs tasks; without it this machine does. `explain`
    and `statistics` are what the optimiser and the executor keep for EXPLAIN and ``--stats``.
    """

    memory: int = field(default_factory=lambda: current_options().memory)
    threads: int = field(default_factory=lambda: current_options().workers)
    strict: bool = False
    plain: bool = False
    seed: int | None = None
    show: Callable[[str], None] = _print
    directory: Path = field(default_factory=Path)
    engine: Engine | None = None
    explain: Any = None
    statistics: Any = None
    pool: Any = None
    opened: list[Any] = field(default_factory=list)  # tables that are read block by block, and engines: until `close`

    @property
    def elsewhere(self) -> bool:
        """Whether tables are scanned by workers that do not share memory with this process."""
        return self.engine is not None and self.engine.name != "local"

    @cached_property
    def random(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)  # numpy imports its generators when they are first asked for

    def draw_seed(self) -> int:
        """A seed for a random matrix that was asked for without one."""
        return int(self.random.integers(2**62))

    def rest(self) -> None:
        """Let go of workers that stay between scans of tables: others need their places."""
        for matrix in filter(is_streamed, self.opened):
            matrix.rest()

    def close(self) -> None:
        """Let go of the tables that the run read block by block, and of the engine that was opened for it."""
        while self.opened:
            self.opened.pop().close()
