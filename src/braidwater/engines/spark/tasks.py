"""Tasks on Spark."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

from braidwater.engines.base import Outcome, RunningTasks, Task
from braidwater.engines.local.processes import LocalTasks
from braidwater.engines.spark.places import SparkPlaces


class SparkTasks(RunningTasks):
    """Tasks on worker processes that Spark has placed, each in a job of its own (see `Engine.tasks`).

    A process takes one task after another. One whose executor or machine is lost is begun anew up to three times, whatever
    its `retries`, as Spark does with its own; `retries` counts the deaths of the process itself.
    """

    def __init__(self, tasks: Iterable[Task | None], workers: int, places: SparkPlaces) -> None:
        self._places = places
        self._running = LocalTasks(tasks, workers, start=places)
        self._release = weakref.finalize(self, _end, self._running, places)

    def __iter__(self) -> SparkTasks:
        return self

    def __next__(self) -> Outcome:
        try:
            return next(self._running)
        except BaseException:
            self.close()
            raise

    def stop(self, name: str) -> None:
        self._running.stop(name)

    def close(self) -> None:
        self._release()


def _end(running: LocalTasks, places: SparkPlaces) -> None:
    running.close()
    places.close()
