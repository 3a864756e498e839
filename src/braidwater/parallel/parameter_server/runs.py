"""The steps of an epoch, handed out to workers in runs."""

from __future__ import annotations

from collections.abc import Iterable


class Runs:
    """Runs of `length` steps out of `steps`, each given to one worker at a time.

    A run counts once it is finished. That of a worker that dies is handed out again, so every step is taken at least once,
    and more than once only those of such a run. `done` are the first steps of runs that were finished before.

    >>> runs = Runs(steps=5, length=2)
    >>> runs.take(0), runs.take(1)
    (range(0, 2), range(2, 4))
    >>> runs.finish(0), runs.take(0), runs.take(0)
    (None, range(4, 5), None)
    >>> runs.lose(1), runs.take(2)
    (None, range(2, 4))
    """

    def __init__(self, steps: int, length: int, done: Iterable[int] = ()) -> None:
        self.done = list(done)
        finished = set(self.done)
        begins = [begin for begin in range(0, steps, length) if begin not in finished]
        self._waiting = [range(begin, min(begin + length, steps)) for begin in reversed(begins)]
        self._held: dict[int, range] = {}

    @property
    def left(self) -> int:
        """How many runs are not finished."""
        return len(self._waiting) + len(self._held)

    def take(self, worker: int) -> range | None:
        """The next run, or None: then none is free now, though one may come back."""
        if worker in self._held or not self._waiting:
            return None
        self._held[worker] = self._waiting.pop()
        return self._held[worker]

    def finish(self, worker: int) -> None:
        self.done.append(self._held.pop(worker).start)

    def lose(self, worker: int) -> None:
        """The worker is gone: its run is the next to be handed out."""
        if worker in self._held:
            self._waiting.append(self._held.pop(worker))
