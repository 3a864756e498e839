"""Runs a scan over matrices in memory: parts of the rows on threads, each part block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from braidwater.dml.hops import Hop
from braidwater.dml.hops.facts import Facts, is_csr
from braidwater.dml.plan.scan import FIRST_ONLY, NARROW, PARTS, PRODUCTS, Scan, aligned_inputs, constant_inputs
from braidwater.dml.runtime.block_kernels import FOLDS, MAPS, finished
from braidwater.dml.values import Array


class RunsParts(Protocol):
    """Runs `run(part)` for every part, on threads."""

    def __call__(self, run: Any, parts: int) -> None: ...


@dataclass(frozen=True, slots=True)
class _Map:
    """An aligned operator: its kernel, registers of its inputs, its register, width and order of its buffer."""

    kernel: Any
    inputs: tuple[int, ...]
    out: int
    width: int
    narrow: bool


@dataclass(frozen=True, slots=True)
class _Fold:
    op: str
    kernel: Any
    merge: Any
    inputs: tuple[int, ...]
    cols: int


class CompiledScan:
    """A scan as registers: sources first, then constants, then aligned values.

    `run(sources, constants, on_threads)` takes the values of `scan.sources` and `scan.constants` and returns those of
    `scan.stored` and `scan.folds`. It may be called from several threads. `by_columns` says that the blocks of sources lie column
    by column, as those of a table do.
    """

    def __init__(self, scan: Scan, by_columns: bool = False) -> None:
        self.scan = scan
        sources, constants = scan.sources, scan.constants
        register = {hop: place for place, hop in enumerate(sources)}
        fixed = {hop: len(sources) + place for place, hop in enumerate(constants)}
        narrow = dict.fromkeys(sources, by_columns)
        self.maps: list[_Map] = []
        for hop in scan.aligned:
            register[hop] = len(sources) + len(constants) + len(self.maps)
            narrow[hop] = _by_columns(hop, narrow, scan.rows)
            inputs = tuple(_registers(hop, register, fixed, scan.rows))
            self.maps.append(_Map(_kernel(hop), inputs, register[hop], hop.facts.cols or 1, narrow[hop]))
        self.folds = [
            _Fold(hop.op, *FOLDS[hop.op], tuple(register[each] for each in hop.inputs), hop.inputs[0].facts.cols or 1)
            for hop in scan.folds
        ]
        self.stored = [(register[hop], hop.facts.cols or 1) for hop in scan.stored]
        self.registers = len(sources) + len(constants) + len(self.maps)
        self.block_rows = scan.block_rows

    def run(self, sources: Sequence[Any], constants: Sequence[Any], on_threads: RunsParts) -> list[Any]:
        rows = self.scan.rows
        matrices = [source.toarray() if is_csr(source) else source for source in sources]
        fixed = [each.toarray() if is_csr(each) else each for each in constants]
        stored = [np.empty((rows, cols)) for _, cols in self.stored]
        step = self._part_rows()
        states: list[list[Any]] = [[] for _ in range(-(-rows // step))]
        idle: list[Buffers] = []

        def run_part(part: int) -> None:
            buffers = idle.pop() if idle else self.buffers()
            for begin in range(part * step, min((part + 1) * step, rows), self.block_rows):
                end = min(begin + self.block_rows, (part + 1) * step, rows)
                blocks = [matrix[begin:end] for matrix in matrices]
                states[part] = self.step(buffers, blocks, fixed, states[part], [out[begin:end] for out in stored])
            idle.append(buffers)

        on_threads(run_part, len(states))
        return [*stored, *self.final(states)]

    def _part_rows(self) -> int:
        """Rows of a part: whole blocks; parts follow from the rows alone, so that a result does not depend on threads."""
        blocks = -(-self.scan.rows // self.block_rows)
        return -(-blocks // min(PARTS, blocks)) * self.block_rows

    def buffers(self) -> Buffers:
        """What one thread needs."""
        return Buffers(self.maps, self.block_rows)

    def step(
        self,
        buffers: Buffers,
        blocks: Sequence[Array],
        constants: Sequence[Any],
        states: list[Any],
        stored: Sequence[Array],
    ) -> list[Any]:
        """One block: aligned values into buffers, those that are stored into place, folds into the states of the part."""
        registers: list[Any] = [*blocks, *constants, *buffers.views(len(blocks[0]))]
        for each in self.maps:
            each.kernel(*[registers[place] for place in each.inputs], registers[each.out])
        for (place, _), out in zip(self.stored, stored, strict=True):
            out[...] = registers[place]
        found = [fold.kernel(*[registers[place] for place in fold.inputs]) for fold in self.folds]
        return self.merged(states, found) if states else found

    def merged(self, one: list[Any], other: list[Any]) -> list[Any]:
        """Two states as one; `one` may be changed."""
        return [fold.merge(a, b) for fold, a, b in zip(self.folds, one, other, strict=True)]

    def final(self, parts: Sequence[list[Any]]) -> list[Any]:
        """The values of the folds."""
        whole, *others = parts
        for other in others:
            whole = self.merged(whole, other)
        return [
            finished(fold.op, state, self.scan.rows, fold.cols) for fold, state in zip(self.folds, whole, strict=True)
        ]


class Buffers:
    """What one thread writes blocks of aligned values into."""

    def __init__(self, maps: Sequence[_Map], rows: int) -> None:
        self._rows = rows
        self._whole = [np.empty((each.width, rows)).T if each.narrow else np.empty((rows, each.width)) for each in maps]

    def views(self, rows: int) -> list[Array]:
        if rows == self._rows:
            return self._whole
        return [_first(buffer, rows) for buffer in self._whole]


def _first(buffer: Array, rows: int) -> Array:
    """A buffer for fewer rows, without gaps: products write to whole columns."""
    cells = buffer.T.reshape(-1) if buffer.flags.f_contiguous else buffer.reshape(-1)
    cells = cells[: rows * buffer.shape[1]]
    return cells.reshape(buffer.shape[1], rows).T if buffer.flags.f_contiguous else cells.reshape(rows, buffer.shape[1])


def _by_columns(hop: Hop, narrow: dict[Hop, bool], rows: int) -> bool:
    """Whether a value lies column by column: narrow ones do, unless they are made from a matrix that lies row by row."""
    if hop.facts.cols == 1:
        return True
    wide = [each for each in aligned_inputs(hop, rows) if each.facts.cols != 1]
    if hop.op in PRODUCTS:
        return (hop.facts.cols or 0) <= NARROW
    return all(narrow[each] for each in wide)


def _registers(hop: Hop, register: dict[Hop, int], fixed: dict[Hop, int], rows: int) -> list[int]:
    aligned, constant = aligned_inputs(hop, rows), constant_inputs(hop, rows)
    if hop.op in FIRST_ONLY:
        return [register[aligned[0]], *(fixed[each] for each in constant)]
    return [register[each] if each.facts.rows == rows else fixed[each] for each in hop.inputs]


def _kernel(hop: Hop) -> Any:
    return MAPS["square"] if hop.op == "^" and _is_two(hop.inputs[1].facts) else MAPS[hop.op]


def _is_two(facts: Facts) -> bool:
    return facts.kind == "scalar" and facts.value == 2 and not isinstance(facts.value, bool)
