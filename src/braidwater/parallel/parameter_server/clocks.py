"""Clocks of workers, and who of them must wait: bounded staleness."""

from __future__ import annotations


class Clocks:
    """Workers' clocks count their pushes. Nobody may be more than `staleness` ahead of the slowest (None: however far).

    Ho et al. 2013 ("More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server"): a worker at clock c
    may go on while the slowest of those at work is at ``c - staleness`` or later. With staleness 0 all go in step. Who waits
    for rows, or has died, is not at work and holds up nobody.

    >>> clocks = Clocks(staleness=1)
    >>> clocks.join(0), clocks.join(1)
    (None, None)
    >>> clocks.tick(0), clocks.may_go_on(0)
    (None, True)
    >>> clocks.tick(0), clocks.may_go_on(0), clocks.may_go_on(1)
    (None, False, True)
    >>> clocks.leave(1), clocks.may_go_on(0)
    (None, True)
    """

    def __init__(self, staleness: int | None) -> None:
        self.staleness = staleness
        self._at_work: dict[int, int] = {}

    def join(self, worker: int) -> None:
        """A worker takes up work, level with the slowest, so that it neither waits for others nor they for it."""
        self._at_work.setdefault(worker, min(self._at_work.values(), default=0))

    def leave(self, worker: int) -> None:
        self._at_work.pop(worker, None)

    def tick(self, worker: int) -> None:
        """A worker's push has arrived."""
        self._at_work[worker] += 1

    def may_go_on(self, worker: int) -> bool:
        if self.staleness is None or worker not in self._at_work:
            return True
        return self._at_work[worker] - min(self._at_work.values()) <= self.staleness
