"""Which memory a generated function writes its values into: that of values which nobody reads again, or scratch memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from braidwater.dml.hops import Facts
from braidwater.dml.plan.cost import memory
from braidwater.dml.runtime.pool import SMALLEST

BORROWED = 1 << 15  # bytes from which values that nobody keeps are written into scratch memory

Shape = tuple[int | None, int | None]


class Rooms:
    """The memory behind the slots of a function. `text` names the local variables of slots.

    `kept` are slots whose memory goes on after the function, results and what these may be views of: scratch memory is none for
    them. A slot is *own* as long as its matrix is surely seen by nobody else: only such memory is written over.
    """

    def __init__(self, kept: set[int], text: Mapping[int, str]) -> None:
        self.borrowed: list[str] = []
        self._kept = kept
        self._text = text
        self._own: dict[int, Shape] = {}
        self._scratch: set[int] = set()  # slots in scratch memory
        self._idle: dict[tuple[Shape, bool], list[str]] = {}  # by sizes, and whether it is scratch memory

    def made(self, slot: int, facts: Facts) -> None:
        """A slot has a matrix of its own."""
        self._own[slot] = facts.shape

    def seen(self, slots: Iterable[int]) -> None:
        """Others may hold on to the memory of these slots."""
        for slot in slots:
            self._own.pop(slot, None)

    def release(self, slots: Iterable[int]) -> None:
        """Nobody reads these slots again."""
        for slot in slots:
            shape = self._own.pop(slot, None)
            if shape is not None:
                self._idle.setdefault((shape, slot in self._scratch), []).append(self._text[slot])

    def idle(self, slot: int, facts: Facts, dying: Iterable[int]) -> str | None:
        """Memory of these sizes for a slot: that of an input which is `dying`, or of a slot that was released."""
        for each in dying:
            if self._own.get(each) == facts.shape and not (each in self._scratch and slot in self._kept):
                del self._own[each]
                if each in self._scratch:
                    self._scratch.add(slot)
                return self._text[each]
        for scratch in (False,) if slot in self._kept else (True, False):
            names = self._idle.get((facts.shape, scratch))
            if names:
                if scratch:
                    self._scratch.add(slot)
                return names.pop()
        return None

    def borrows(self, slot: int, facts: Facts) -> bool:
        """Whether a slot is worth scratch memory, and may have it."""
        return slot not in self._kept and BORROWED <= memory(facts) < SMALLEST

    def borrow(self, slot: int) -> str:
        """The name of a further piece of scratch memory."""
        self._scratch.add(slot)
        self.borrowed.append(f"b{len(self.borrowed)}")
        return self.borrowed[-1]
