"""A plan as a tree that can be read: what is going to be done, what it costs, what was chosen and what was not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from braidwater.options import format_bytes
from braidwater.planner.constants import Machine
from braidwater.planner.cost import Cost, Setting

_TITLE_WIDTH = 46
_COLUMNS = (("time", 12), ("CPU", 12), ("memory", 9), ("read", 9))


@dataclass
class Node:
    """A step of the plan with its estimated cost, and the measured one after it ran. `passes` tells which passes it is of."""

    title: str
    estimated: Cost
    detail: str = ""
    measured: Cost | None = None
    children: list[Node] = field(default_factory=list)
    role: str = ""  # "first" or "later": which passes of a run are measured into it


@dataclass(frozen=True)
class Rejected:
    """A road not taken, and why. `seconds` is its estimate, None where it could not run at all."""

    value: str
    why: str
    seconds: float | None = None


@dataclass(frozen=True)
class Choice:
    """One decision of the planner."""

    name: str
    value: str
    why: str
    rejected: tuple[Rejected, ...] = ()


@dataclass(frozen=True)
class Offer:
    """A strategy with its price: seconds of the whole training (None where it cannot run), bytes that each worker holds for the
    net, bytes that each worker sends in a step. `told` are its options, `exact` whether it learns what one worker would.
    """

    name: str
    told: str
    workers: int
    chosen: bool
    exact: bool
    why: str
    seconds: float | None
    worker_bytes: int
    step_bytes: int

    @property
    def title(self) -> str:
        return f"{self.name}, {self.told}" if self.told else self.name


@dataclass(frozen=True)
class Chosen(Setting):
    """The decisions in the form that an engine takes them."""

    engine: str = "local"


@dataclass
class Plan:
    """What the planner picked for a training, before it runs; after `measuring`, what it came to beside it.

    `str(plan)` is the tree for people, `to_json()` the same for programs, `chosen` what an engine needs to know.
    """

    name: str
    table: str
    rows: int
    table_bytes: int
    chosen: Chosen
    root: Node
    choices: list[Choice]
    memory_limit: int
    memory_parts: dict[str, int]
    machine: Machine
    offers: list[Offer] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Fill the measured side with what happens inside the `with` block."""
        from braidwater.planner.measure import measuring

        with measuring(self):
            yield

    def to_json(self) -> dict[str, Any]:
        """The plan as plain values: times in seconds, sizes in bytes."""
        return {
            "name": self.name,
            "table": self.table,
            "rows": self.rows,
            "table_bytes": self.table_bytes,
            "chosen": asdict(self.chosen) | {"options": {name: str(value) for name, value in self.chosen.options}},
            "steps": _node_json(self.root),
            "choices": [asdict(choice) for choice in self.choices],
            "strategies": [asdict(offer) for offer in self.offers],
            "notes": list(self.notes),
            "memory_limit": self.memory_limit,
            "memory_parts": dict(self.memory_parts),
            "machine": self.machine.to_json(),
            "text": str(self),
        }

    def __str__(self) -> str:
        lines = [
            f"{self.name} over {self.table}: {self.rows:,} rows, {format_bytes(self.table_bytes)} where they lie",
            "",
        ]
        measured = self.root.measured is not None
        lines += _header(measured)
        lines += _node_lines(self.root, "", "", measured)
        lines += ["", self._memory_line(), "", "chosen"]
        for number, choice in enumerate(self.choices):
            told = choice if not self.offers or choice.name != "strategy" else replace(choice, rejected=())
            lines += _choice_lines(told, last=number == len(self.choices) - 1)
        if len(self.offers) > 1:
            lines += ["", *_offer_lines(self.offers)]
        lines += ["", *self.notes, self._machine_line()]
        return "\n".join(line.rstrip() for line in lines)

    def _memory_line(self) -> str:
        parts = ", ".join(f"{name} {format_bytes(size)}" for name, size in self.memory_parts.items() if size)
        return (
            f"memory at most {format_bytes(self.root.estimated.memory)} of {format_bytes(self.memory_limit)}: {parts}"
        )

    def _machine_line(self) -> str:
        cores = f"{self.machine.cores} core{'s' if self.machine.cores > 1 else ''}"
        if not self.machine.measured:
            return f"estimated with the constants of the reference machine ({cores}); `braidwater doctor` measures this one"
        return f"estimated with constants measured on {self.machine.measured} ({self.machine.name}, {cores})"


def _header(measured: bool) -> list[str]:
    names = "".join(f"{name:>{width}}" for name, width in _COLUMNS)
    left = " " * _TITLE_WIDTH
    if not measured:
        return [left + f"{'estimated':>{len(names)}}", left + names]
    bar = "  │ "
    return [left + f"{'estimated':>{len(names)}}" + bar + f"{'measured':>{len(names)}}", left + names + bar + names]


def _node_lines(node: Node, lead: str, below: str, measured: bool) -> Iterator[str]:
    yield f"{lead + node.title:<{_TITLE_WIDTH}}" + _figures(node, measured)
    if node.detail:
        yield below + ("│  " if node.children else "   ") + node.detail
    for number, child in enumerate(node.children):
        last = number == len(node.children) - 1
        yield from _node_lines(child, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  "), measured)


def _figures(node: Node, measured: bool) -> str:
    text = _cost(node.estimated)
    return text + "  │ " + (_cost(node.measured) if node.measured else "") if measured else text


def _cost(cost: Cost) -> str:
    sizes = [format_bytes(size) if size else "–" for size in (cost.memory, cost.bytes_read)]
    cells = (format_seconds(cost.seconds), format_seconds(cost.cpu_seconds), *sizes)
    return "".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, _COLUMNS, strict=True))


def _choice_lines(choice: Choice, last: bool) -> Iterator[str]:
    lead, below = ("└─ ", "   ") if last else ("├─ ", "│  ")
    yield f"{lead}{choice.name} {choice.value}: {choice.why}"
    for number, rejected in enumerate(choice.rejected):
        yield f"{below}{'└─' if number == len(choice.rejected) - 1 else '├─'} not {rejected.value}: {rejected.why}"


def _offer_lines(offers: Sequence[Offer]) -> Iterator[str]:
    width = max(len(offer.title) for offer in offers) + 2
    yield f"{'strategies':<{width}}{'workers':>9}{'time':>13}{'a worker':>12}{'a step sends':>15}"
    for offer in offers:
        sizes = [format_bytes(size) if size else "–" for size in (offer.worker_bytes, offer.step_bytes)]
        time = "–" if offer.seconds is None else format_seconds(offer.seconds)
        mark = "▸ " if offer.chosen else "  "
        figures = f"{offer.workers:>9}{time:>13}{sizes[0]:>12}{sizes[1]:>15}"
        yield f"{mark + offer.title:<{width}}{figures}   {'' if offer.chosen else offer.why}"


def _node_json(node: Node) -> dict[str, Any]:
    return {
        "title": node.title,
        "detail": node.detail,
        "estimated": asdict(node.estimated),
        "measured": None if node.measured is None else asdict(node.measured),
        "children": [_node_json(child) for child in node.children],
    }


def format_seconds(seconds: float) -> str:
    """A duration as a person reads it.

    >>> [format_seconds(s) for s in (0.00002, 0.0123, 1.24, 75, 8000)]
    ['0.0 ms', '12 ms', '1.2 s', '1 min 15 s', '2 h 13 min']
    """
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min" if whole < 36_000 else f"{whole / 3600:,.1f} h"
