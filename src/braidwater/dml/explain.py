"""EXPLAIN and statistics of scripts: what was planned, what was chosen and rejected, what took how long.

Give a run an `Explanation` or `Statistics` and read their text afterwards::

    context = Context(explain=Explanation("hops"), statistics=Statistics())
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from braidwater.dml.hops import Hop, reachable, to_text
from braidwater.dml.hops.node import written
from braidwater.dml.plan.cost import is_sparse, memory, seconds
from braidwater.dml.plan.scan import Scan
from braidwater.dml.rewrites import Choice
from braidwater.dml.runtime.program import Instruction, Program
from braidwater.errors import OptionError
from braidwater.options import format_bytes

SHOWN = 60  # characters of an expression
WIDEST = 36  # characters of an operator and its inputs
REJECTED = 8  # candidates of a block that are written out, the closest first


@dataclass
class Explanation:
    """Collects the programs of a run, each once; `text` prints them.

    `level` "hops" shows the operators after rewriting: sizes, format, memory, estimated time and where each runs, which rewrites
    were applied and which were rejected with what they would have cost. "runtime" shows the instructions in their order.
    """

    level: Literal["hops", "runtime"] = "hops"
    programs: list[Program] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.level not in ("hops", "runtime"):
            raise OptionError("explain", self.level, "hops or runtime")

    def add(self, program: Program) -> None:
        if not any(program is known for known in self.programs):
            self.programs.append(program)

    def note(self, text: str) -> None:
        """What was chosen beside programs: how the turns of a parallel loop ran."""
        if text not in self.notes:
            self.notes.append(text)

    @property
    def text(self) -> str:
        show = hops_text if self.level == "hops" else runtime_text
        blocks = (f"block {number}: {show(program)}" for number, program in enumerate(self.programs, 1))
        return "\n\n".join([*blocks, *self.notes])


def hops_text(program: Program) -> str:
    """The operators of a program with their estimates, then the rewrites that were weighed."""
    order = reachable(program.root_hops)
    numbers = {hop: number for number, hop in enumerate((hop for hop in order if not _is_number(hop)), 1)}
    scans = [instruction.scan for instruction in program.instructions if instruction.scan is not None]
    estimate = f"estimated {duration(program.after)} (as written {duration(program.before)})"
    lines = [f"{len(numbers)} operators and matrices, {estimate}"]
    lines += [_hop_line(hop, numbers, scans, set(program.root_hops)) for hop in order if hop in numbers]
    lines += [f"  applied   {choice}" for choice in map(_choice, program.weighed.applied)]
    rejected = sorted(program.weighed.rejected, key=lambda choice: -choice.gain)
    lines += [f"  rejected  {choice}" for choice in map(_choice, rejected[:REJECTED])]
    if len(rejected) > REJECTED:
        lines.append(f"  rejected  {len(rejected) - REJECTED} more that would cost more still")
    return "\n".join(lines)


def runtime_text(program: Program) -> str:
    """The instructions in their order; a scan with what it does to each block of rows."""
    named = {hop.attributes["place"]: to_text(hop) for hop in reachable(program.root_hops) if hop.op == "leaf"}
    given = {slot: named.get(place, "?") for slot, place in enumerate(program.leaves)}
    shown = {**given, **{slot: str(value) for slot, value in program.constants}}
    lines = [f"{len(program.instructions)} instructions"]
    for instruction in program.instructions:
        lines += [f"  {line}" for line in _instruction_lines(instruction, shown)]
    return "\n".join(lines)


@dataclass
class Statistics:
    """Measured time by instruction; `text` prints the heaviest, as ``--stats`` does."""

    shown: int = 10
    blocks: int = 0
    planning: float = 0.0
    _spent: dict[str, tuple[int, float]] = field(default_factory=dict)

    def planned(self, spent: float) -> None:
        """A block was planned anew."""
        self.blocks += 1
        self.planning += spent

    def ran(self, instruction: Instruction, spent: float) -> None:
        """An instruction ran once."""
        self.note(_heading(instruction), spent)

    def note(self, name: str, spent: float) -> None:
        """Something else ran once."""
        count, before = self._spent.get(name, (0, 0.0))
        self._spent[name] = count + 1, before + spent

    @property
    def seconds(self) -> float:
        """Of all instructions."""
        return sum(spent for _, spent in self._spent.values())

    @property
    def text(self) -> str:
        ordered = sorted(self._spent.items(), key=lambda item: -item[1][1])
        width = max((len(name) for name, _ in ordered[: self.shown]), default=10)
        lines = [f"{duration(self.seconds)} in instructions, {duration(self.planning)} planning {self.blocks} blocks",
                 f"{'heaviest':<{width}}  {'time':>9}  {'share':>5}  {'count':>7}"]  # fmt: skip
        for name, (count, spent) in ordered[: self.shown]:
            share = spent / self.seconds if self.seconds else 0.0
            lines.append(f"{name:<{width}}  {duration(spent):>9}  {share:>5.0%}  {count:>7}")
        return "\n".join(lines)


def duration(value: float) -> str:
    """Seconds as a person reads them.

    >>> duration(0.00042), duration(3.21)
    ('420 us', '3.2 s')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= size or unit == "us":
            return f"{value / size:.{1 if value / size < 10 else 0}f} {unit}"
    raise AssertionError


def _hop_line(hop: Hop, numbers: dict[Hop, int], scans: list[Scan], roots: set[Hop]) -> str:
    inputs = [f"_{numbers[each]}" if each in numbers else to_text(each) for each in hop.inputs]
    what = to_text(hop) if hop.op == "leaf" else _cut(f"{hop.op}({', '.join([*inputs, *written(hop)])})", WIDEST)
    place = next((f"scan {number}" for number, scan in enumerate(scans, 1) if hop in scan.members), "")
    if not place and hop.op not in ("leaf", "literal"):
        place = "in memory"
    kind = "sparse" if is_sparse(hop.facts) else "dense" if hop.facts.is_matrix else ""
    size = format_bytes(memory(hop.facts)) if hop.facts.is_matrix and hop.facts.known else ""
    spent = "" if hop.op in ("leaf", "literal") else duration(seconds(hop))
    line = f"{hop.span.file}:{hop.span.line}" if hop.span else ""
    mark = "*" if hop in roots else " "
    columns = f"{hop.facts!s:<24} {kind:<6} {size:>9} {spent:>8}  {place:<9} {line}"
    return f" {mark}{f'_{numbers[hop]}':>4}  {what:<{WIDEST}} {columns}".rstrip()


def _instruction_lines(instruction: Instruction, shown: Mapping[int, str]) -> Iterator[str]:
    """Variables and numbers by name, what instructions made by a number."""
    outputs = ", ".join(f"_{slot}" for slot in instruction.outputs)
    inputs = [shown.get(slot, f"_{slot}") for slot in instruction.inputs]
    attributes = () if instruction.scan is not None else written(instruction.hops[0])
    freed = [f"_{slot}" for slot in instruction.frees if slot not in shown]
    yield f"{outputs} = {instruction.name}({', '.join([*inputs, *attributes])})" + (
        f"   frees {', '.join(freed)}" if freed else ""
    )
    if instruction.scan is not None:
        yield from _scan_lines(instruction.scan, inputs, instruction.outputs)


def _scan_lines(scan: Scan, inputs: Sequence[str], outputs: Sequence[int]) -> Iterator[str]:
    """What is done to each block: `~1`, `~2`, ... are of a block only."""
    yield f"  over {scan.rows} rows, {scan.block_rows} at a time"
    names = dict(zip([*scan.sources, *scan.constants], inputs, strict=True))
    names |= {hop: f"_{slot}" for hop, slot in zip([*scan.stored, *scan.folds], outputs, strict=True)}
    passing = [hop for hop in scan.members if hop not in names]
    names |= {hop: f"~{number}" for number, hop in enumerate(passing, 1)}
    for hop in scan.members:
        kept = "   (stored)" if hop in scan.stored else "   (summed up)" if hop in scan.folds else ""
        yield f"  {names[hop]} = {hop.op}({', '.join([*(names[each] for each in hop.inputs), *written(hop)])}){kept}"


def _heading(instruction: Instruction) -> str:
    if instruction.scan is None:
        return _short(instruction.hops[0])
    results = [*instruction.scan.folds, *instruction.scan.stored]
    return _cut(f"scan: {'; '.join(map(to_text, results))}")


def _short(hop: Hop) -> str:
    return _cut(to_text(hop))


def _cut(text: str, size: int = SHOWN) -> str:
    return text if len(text) <= size else text[: size - 3] + "..."


def _choice(choice: Choice) -> str:
    return f"{choice.rule}: {_short(choice.before)} -> {_short(choice.after)} ({-choice.gain * 1e6:+.3g} us)"


def _is_number(hop: Hop) -> bool:
    """Numbers stand in the operators that read them, without a line of their own."""
    return hop.op == "literal" or (hop.op == "leaf" and not hop.facts.is_matrix)
