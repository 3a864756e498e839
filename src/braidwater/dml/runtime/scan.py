"""Runs a scan over matrices in memory: parts of the rows on threads, each part block by block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Protocol, TypeAlias

import numpy as np

from braidwater.dml.hops import Hop
from braidwater.dml.hops.facts import Facts, is_csr
from braidwater.dml.plan.scan import FIRST_ONLY, NARROW, PARTS, PRODUCTS, Scan, aligned_inputs, constant_inputs
from braidwater.dml.runtime.block_kernels import FOLDS, MAPS, finished
from braidwater.dml.runtime.pool import Scratch
from braidwater.dml.values import Array

Registers: TypeAlias = list[Any]
Takes: TypeAlias = Callable[[tuple[int, int]], Array]


class RunsParts(Protocol):
    """Runs `run(part)` for every part, on threads."""

    def __call__(self, run: Any, parts: int) -> None: ...


@dataclass(frozen=True, slots=True)
class _Map:
    """An aligned operator: its kernel, what takes its inputs and its buffer out of the registers; the buffer's register,
    width and order."""

    kernel: Any
    arguments: Callable[[Registers], Sequence[Any]]
    out: int
    width: int
    narrow: bool


@dataclass(frozen=True, slots=True)
class _Fold:
    op: str
    kernel: Any
    merge: Any
    arguments: Callable[[Registers], Sequence[Any]]
    cols: int


@dataclass(frozen=True, slots=True)
class _Stored:
    """An aligned value that is kept: its register and width, and whether its kernel writes into place."""

    place: int
    cols: int
    direct: bool


class CompiledScan:
    """A scan as registers: sources first, then constants, then aligned values.

    `run(sources, constants, on_threads)` takes the values of `scan.sources` and `scan.constants` and returns those of
    `scan.stored` and `scan.folds`. It may be called from several threads. `streamed` says that blocks of sources are made from a
    table, and lie column by column.
    """

    def __init__(self, scan: Scan, streamed: bool = False) -> None:
        self.scan = scan
        sources, constants = scan.sources, scan.constants
        register = {hop: place for place, hop in enumerate(sources)}
        fixed = {hop: len(sources) + place for place, hop in enumerate(constants)}
        narrow = dict.fromkeys(sources, streamed)
        self.maps: list[_Map] = []
        for hop in scan.aligned:
            register[hop] = len(sources) + len(constants) + len(self.maps)
            narrow[hop] = _by_columns(hop, narrow, scan.rows)
            places = [*_registers(hop, register, fixed, scan.rows), register[hop]]
            self.maps.append(_Map(_kernel(hop), _taking(places), register[hop], hop.facts.cols or 1, narrow[hop]))
        self.folds = [
            _Fold(
                hop.op, *FOLDS[hop.op], _taking([register[each] for each in hop.inputs]), hop.inputs[0].facts.cols or 1
            )
            for hop in scan.folds
        ]
        self.stored = [
            _Stored(register[hop], hop.facts.cols or 1, hop.facts.cols == 1 or not narrow[hop]) for hop in scan.stored
        ]
        self._sparse = frozenset(register[source] for source in sources if _stays_sparse(source, scan))
        self.block_rows = scan.streamed_block_rows if streamed else scan.block_rows

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {
            "scan": Scan(self.scan.rows)
        }  # blocks are folded elsewhere without the script's operators

    def run(
        self, sources: Sequence[Any], constants: Sequence[Any], on_threads: RunsParts, scratch: Scratch
    ) -> list[Any]:
        rows = self.scan.rows
        matrices = [self.readable(place, source) for place, source in enumerate(sources)]
        fixed = [each.toarray() if is_csr(each) else each for each in constants]
        stored = [np.empty((rows, each.cols)) for each in self.stored]
        step = self._part_rows()
        states: list[list[Any]] = [[] for _ in range(-(-rows // step))]
        idle: list[Buffers] = []

        def run_part(part: int) -> None:
            buffers = idle.pop() if idle else self.buffers(fixed, scratch.take)
            state: list[Any] = []
            for begin in range(part * step, min((part + 1) * step, rows), self.block_rows):
                end = min(begin + self.block_rows, (part + 1) * step, rows)
                blocks = [matrix[begin:end] for matrix in matrices]
                state = self.step(buffers, blocks, state, [out[begin:end] for out in stored])
            states[part] = state
            idle.append(buffers)

        on_threads(run_part, len(states))
        for buffers in idle:
            scratch.give(*buffers.arrays)
        return [*stored, *self.final(states)]

    def readable(self, place: int, source: Any) -> Any:
        """A source in the form that its operators read."""
        return source.toarray() if is_csr(source) and place not in self._sparse else source

    def _part_rows(self) -> int:
        """Rows of a part: whole blocks; parts follow from the rows alone, so that a result does not depend on threads."""
        blocks = -(-self.scan.rows // self.block_rows)
        return -(-blocks // min(PARTS, blocks)) * self.block_rows

    def buffers(self, constants: Sequence[Any], take: Takes = np.empty) -> Buffers:
        """What one thread needs."""
        return Buffers(self.maps, constants, self.block_rows, take)

    def step(self, buffers: Buffers, blocks: Sequence[Array], states: list[Any], stored: Sequence[Array]) -> list[Any]:
        """One block: aligned values into buffers, or into place if they are stored, folds into the states of the part."""
        registers = buffers.registers(blocks)
        for kept, out in zip(self.stored, stored, strict=True):
            if kept.direct:
                registers[kept.place] = out
        for each in self.maps:
            each.kernel(*each.arguments(registers))
        for kept, out in zip(self.stored, stored, strict=True):
            if not kept.direct:
                out[...] = registers[kept.place]
        found = [fold.kernel(*fold.arguments(registers)) for fold in self.folds]
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

    def __init__(self, maps: Sequence[_Map], constants: Sequence[Any], rows: int, take: Takes) -> None:
        self._rows = rows
        self.arrays = [take((each.width, rows) if each.narrow else (rows, each.width)) for each in maps]
        self._whole = [array.T if each.narrow else array for each, array in zip(maps, self.arrays, strict=True)]
        self._constants = constants

    def registers(self, blocks: Sequence[Array]) -> Registers:
        """Sources, constants, and room for aligned values of as many rows as the sources have."""
        rows = blocks[0].shape[0]
        room = self._whole if rows == self._rows else [_first(buffer, rows) for buffer in self._whole]
        return [*blocks, *self._constants, *room]


def _stays_sparse(source: Hop, scan: Scan) -> bool:
    """Whether all that read it take sparse rows: the left of ``t(A) %*% B``."""
    readers = [hop for hop in scan.members if source in hop.inputs]
    return all(hop.op == "tmatmul" and hop.inputs[1] is not source for hop in readers)


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


def _taking(places: Sequence[int]) -> Callable[[Registers], Sequence[Any]]:
    """What takes these places out of the registers: the fastest that Python has, since it runs for every operator and block."""
    return itemgetter(*places) if len(places) > 1 else itemgetter(slice(places[0], places[0] + 1))
