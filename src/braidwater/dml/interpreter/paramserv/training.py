"""Who waits for whom: the three ways of a parameter server to bring the workers' gradients together."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from braidwater.dml.interpreter.paramserv.crew import Crew
from braidwater.dml.interpreter.paramserv.steps import Pushed, Rows, Steps
from braidwater.dml.values import ListValue


@dataclass
class Server:
    """Holds the model. With `average`, workers bring models, whose mean is the next one."""

    steps: Steps
    model: ListValue
    average: bool

    def update(self, pushed: Sequence[Pushed]) -> None:
        """Take what workers brought together, in the order of the workers: sums have the same bits each time."""
        values = [each.value for each in sorted(pushed, key=lambda each: each.worker)]
        if self.average:
            self.model = self.steps.combined(values, 1 / len(values))
        else:
            self.model = self.steps.aggregated(self.model, self.steps.combined(values))


def train(server: Server, crew: Crew, rows: Rows, update: str, epochs: int, every: int, backups: int) -> ListValue:
    """The model after `epochs`. Workers visit the server after `every` batches.

    BSP (bulk synchronous): all workers' gradients make one update. ASP (asynchronous): each worker's do, of a model that others
    may have updated meanwhile. SBP (synchronous with backup workers, Chen et al. 2016): the first k - `backups` make an update,
    and what the others bring later is dropped.
    """
    visits = [_visits(rows.batches(worker), every, epochs) for worker in range(len(rows.parts))]
    if update == "ASP":
        _asynchronous(server, crew, visits)
    else:
        _synchronous(server, crew, visits, backups if update == "SBP" else 0)
    return server.model


def visits_of(rows: Rows, every: int, epochs: int) -> int:
    """How often workers visit the server, all together."""
    return epochs * sum(-(-rows.batches(worker) // every) for worker in range(len(rows.parts)))


def _visits(batches: int, every: int, epochs: int) -> Iterator[range]:
    for _ in range(epochs):
        for first in range(0, batches, every):
            yield range(first, min(first + every, batches))


def _synchronous(server: Server, crew: Crew, visits: Sequence[Iterator[range]], backups: int) -> None:
    """Updates by the first that bring gradients of the newest model; who is late begins anew with it."""
    free, at_work, late = set(range(len(visits))), set[int](), set[int]()

    def send(worker: int) -> None:
        if (batches := next(visits[worker], None)) is not None:
            crew.send(worker, server.model, batches)
            at_work.add(worker)

    while True:
        for worker in sorted(free):
            send(worker)
        free.clear()
        pushed: list[Pushed] = []
        while at_work and len(pushed) < len(visits) - backups:
            came = crew.receive()
            at_work.remove(came.worker)
            if came.worker in late:
                late.remove(came.worker)
                send(came.worker)
            else:
                pushed.append(came)
                free.add(came.worker)
        if not pushed:
            return
        with crew.updating(len(pushed)):
            server.update(pushed)
        late = set(at_work)


def _asynchronous(server: Server, crew: Crew, visits: Sequence[Iterator[range]]) -> None:
    free, busy = deque(range(len(visits))), 0
    while free or busy:
        while free and busy < crew.at_once:
            worker = free.popleft()
            if (batches := next(visits[worker], None)) is not None:
                crew.send(worker, server.model, batches)
                busy += 1
        if busy:
            pushed = crew.receive()
            busy -= 1
            with crew.updating(1):
                server.update([pushed])
            free.append(pushed.worker)
