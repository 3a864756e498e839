"""EXPLAIN and statistics of scripts: what was planned, what was chosen and rejected, what took how long.

Give a run an `Explanation` or `Statistics` and read their text afterwards::

    context = Context(explain=Explanation("hops"), statistics=Statistics())
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from braidwater.dml.hops import Hop, reachable, to_text
from braidwater.dml.plan.cost import is_sparse, memory, seconds
from braidwater.dml.plan.scan import Scan
from braidwater.dml.runtime.program import Instruction, Program
from braidwater.errors import OptionError
from braidwater.options import format_bytes

SHOWN = 60  # characters of an expression
REJECTED = 8  # candidates of a block that are written out, the closest first


@dataclass
class Explanation:
    """Collects the programs of a run, each once; `text` prints them.

    `level` "hops" shows the operators after rewriting: sizes, format, memory, estimated time and where each runs, which rewrites
    were applied and which were rejected with what they would have cost. "runtime" shows the instructions in their order.
    """

    level: Literal["hops", "runtime"] = "hops"
    programs: list[Program] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.level not in ("hops", "runtime"):
            raise OptionError("explain", self.level, "hops or runtime")

    def add(self, program: Program) -> None:
        if not any(program is known for known in self.programs):
            self.programs.append(program)

    @property
    def text(self) -> str:
        show = hops_text if self.level == "hops" else runtime_text
        return "\n\n".join(f"block {number}: {show(program)}" for number, program in enumerate(self.programs, 1))


def hops_text(program: Program) -> str:
    """The operators of a program with their estimates, then the rewrites that were weighed."""
    order = reachable(program.root_hops)
    numbers = {hop: number for number, hop in enumerate(order, 1)}
    scans = [instruction.scan for instruction in program.instructions if instruction.scan is not None]
    lines = [f"{len(order)} operators, estimated {duration(program.after)} (as written {duration(program.before)})"]
    lines += [_hop_line(hop, numbers, scans, set(program.root_hops)) for hop in order]
    lines += [f"  applied   {choice}" for choice in map(str, program.weighed.applied)]
    rejected = sorted(program.weighed.rejected, key=lambda choice: -choice.gain)
    lines += [f"  rejected  {choice}" for choice in map(str, rejected[:REJECTED])]
    if len(rejected) > REJECTED:
        lines.append(f"  rejected  {len(rejected) - REJECTED} more that would cost more still")
    return "\n".join(lines)


def runtime_text(program: Program) -> str:
    """The instructions in their order; a scan with what it does to each block of rows."""
    lines = [f"{len(program.instructions)} instructions"]
    for instruction in program.instructions:
        lines += [f"  {line}" for line in _instruction_lines(instruction)]
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
        name = _heading(instruction)
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
    inputs = ", ".join(str(numbers[each]) for each in hop.inputs)
    what = to_text(hop) if hop.op in ("leaf", "literal") else f"{hop.op}({inputs})"
    place = next((f"scan {number}" for number, scan in enumerate(scans, 1) if hop in scan.members), "")
    if not place and hop.op not in ("leaf", "literal"):
        place = "in memory"
    kind = "sparse" if is_sparse(hop.facts) else "dense" if hop.facts.is_matrix else ""
    size = format_bytes(memory(hop.facts)) if hop.facts.is_matrix and hop.facts.known else ""
    spent = "" if hop.op in ("leaf", "literal") else duration(seconds(hop))
    line = hop.span.line if hop.span else ""
    mark = "*" if hop in roots else " "
    return f" {mark}{numbers[hop]:>3}  {what:<24} {hop.facts!s:<24} {kind:<6} {size:>9} {spent:>8}  {place:<9} {line}".rstrip()


def _instruction_lines(instruction: Instruction) -> Iterator[str]:
    outputs = ", ".join(f"_{slot}" for slot in instruction.outputs)
    inputs = ", ".join(f"_{slot}" for slot in instruction.inputs)
    freed = f"   frees {', '.join(f'_{slot}' for slot in instruction.frees)}" if instruction.frees else ""
    yield f"{outputs} = {instruction.name}({inputs}){freed}"
    if instruction.scan is not None:
        scan = instruction.scan
        yield f"  over {scan.rows} rows, {scan.block_rows} at a time"
        for hop in scan.members:
            kept = " (stored)" if hop in scan.stored else " (summed up)" if hop in scan.folds else ""
            yield f"  {_short(hop)}{kept}"


def _heading(instruction: Instruction) -> str:
    if instruction.scan is None:
        return _short(instruction.hops[0])
    results = [*instruction.scan.folds, *instruction.scan.stored]
    return _cut(f"scan: {'; '.join(map(to_text, results))}")


def _short(hop: Hop) -> str:
    return _cut(to_text(hop))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
