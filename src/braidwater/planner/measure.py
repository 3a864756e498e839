"""The measured side of a plan: what the events of a run say it took."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from braidwater.events import BlockDone, Event, MemoryUsed, PassFinished, PassStarted, listen
from braidwater.planner.cost import Cost
from braidwater.planner.tree import Node, Plan

_SAMPLE_SECONDS = 0.02


@contextmanager
def measuring(plan: Plan) -> Iterator[None]:
    """Listen to what happens inside the block and fill `plan`'s measured costs, when it fails too."""
    listener = _Measure(plan)
    try:
        with listen(listener):
            yield
    finally:
        listener.finish()


class _Measure:
    """Adds the passes of a run to the nodes of its plan, and samples the resident memory meanwhile."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._nodes = {node.role: node for node in _walk(plan.root) if node.role}
        self._origin = "table"
        self._first_done = False
        self._started, self._cpu = time.perf_counter(), _cpu_seconds()
        self._before = self._peak = self._pass_peak = resident_bytes()
        self._sampled = 0.0
        for node in _walk(plan.root):
            node.measured = None

    def __call__(self, event: Event) -> None:
        match event:
            case PassStarted():
                self._origin = event.origin
                self._pass_peak = 0
                self._sample()
            case BlockDone():
                if time.perf_counter() - self._sampled > _SAMPLE_SECONDS:
                    self._sample()
            case MemoryUsed():
                self._note(event.resident)
            case PassFinished():
                self._sample()
                self._pass(event)

    def _pass(self, event: PassFinished) -> None:
        from_table = self._origin.startswith("table")
        role = "first" if from_table and not self._first_done and "first" in self._nodes else "later"
        self._first_done = self._first_done or role == "first"
        node = self._nodes.get(role) or self._nodes.get("first")
        if node is None:
            return
        cost = Cost(event.seconds, event.cpu_seconds, max(self._pass_peak - self._before, 0), event.bytes_read)
        node.measured = cost if node.measured is None else node.measured + cost

    def _sample(self) -> None:
        self._sampled = time.perf_counter()
        self._note(resident_bytes())

    def _note(self, resident: int) -> None:
        self._pass_peak = max(self._pass_peak, resident)
        self._peak = max(self._peak, resident)

    def finish(self) -> None:
        self._sample()
        parts = [node.measured for node in self._nodes.values() if node.measured is not None]
        self._plan.root.measured = Cost(
            time.perf_counter() - self._started,
            _cpu_seconds() - self._cpu,
            max(self._peak - self._before, 0),
            sum(part.bytes_read for part in parts),
        )


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _walk(child)


def _cpu_seconds() -> float:
    """Of this process and the children that ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def resident_bytes() -> int:
    """Memory of this process that is in use now; its highest so far where the system tells no more."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
