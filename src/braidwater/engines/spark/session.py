"""What the engine asks of a Spark session: to run functions on its Python workers, to say how many at a time, to stop."""

from __future__ import annotations

import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import cloudpickle
import pyarrow as pa

from braidwater.engines.address import LOCAL
from braidwater.errors import WorkerError
from braidwater.tables.spark_session import short

_START_SECONDS = 30.0  # in which the executors of a new application report


class Importing:
    """A function on its way to Spark's workers, as a cloudpickle inside Spark's own task, with the folders to import from."""

    def __init__(self, function: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]) -> None:
        self._packed = cloudpickle.dumps(function)
        self._folders = [os.path.abspath(folder) for folder in sys.path if folder]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        sys.path += [folder for folder in self._folders if folder not in sys.path and os.path.exists(folder)]
        yield from cloudpickle.loads(self._packed)(batches)


class Numbered:
    """Calls ``function(number)`` for the numbers of a partition; what it yields becomes the rows."""

    def __init__(self, function: Callable[[int], Iterable[bytes]]) -> None:
        self._function = function

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                for row in self._function(number):
                    arrays = [pa.array([number], pa.int64()), pa.array([row], pa.binary())]
                    yield pa.RecordBatch.from_arrays(arrays, ["number", "row"])


class Session:
    """A Spark session, classic or Connect, through the DataFrame API alone."""

    def __init__(self, spark: Any, *, slots: int | None = None, host: str | None = None) -> None:
        self.spark = spark
        self._slots = slots
        self._host = host
        self.classic = not type(spark).__module__.startswith("pyspark.sql.connect")

    @property
    def host(self) -> str:
        """This machine, as the executors know it."""
        if self._host is not None:
            return self._host
        if self.is_local:
            return LOCAL
        found = self.setting("spark.driver.host") if self.classic else None
        return found or socket.gethostbyname(socket.gethostname())

    def setting(self, name: str) -> str | None:
        found: str | None = self.spark.conf.get(name, None)
        return found

    @property
    def master(self) -> str:
        return self.setting("spark.master") or ""

    @property
    def is_local(self) -> bool:
        """Whether all of Spark runs on this machine."""
        return self.master.startswith("local")

    def slots(self, wanted: int = 1) -> int:
        """How many tasks run at a time. The executors of an application that has only begun are waited for, some seconds."""
        if self._slots is not None:
            return self._slots
        if not self.classic:
            return _slots_of(self.master) or wanted  # a remote cluster does not say; then Spark's own check speaks
        found = self._concurrent()
        while (
            found < wanted
            and not self.master.startswith("local[")
            and time.time() - self.spark.sparkContext.startTime / 1000 < _START_SECONDS
        ):
            time.sleep(0.2)
            found = self._concurrent()
        return found

    def await_slots(self, wanted: int, seconds: float) -> int:
        """Wait for lost slots to come back, so many seconds at most; how many of those wanted there are."""
        until = time.monotonic() + seconds
        while (found := self.slots()) < wanted and time.monotonic() < until:
            time.sleep(0.2)
        return max(min(found, wanted), 1)

    def _concurrent(self) -> int:
        context = self.spark.sparkContext._jsc.sc()
        profile = context.resourceProfileManager().resourceProfileFromId(0)
        return int(context.maxNumConcurrentTasks(profile))

    def run(
        self, function: Callable[[int], Iterable[bytes]], count: int, *, tag: str, barrier: bool = False
    ) -> list[tuple[int, bytes]]:
        """One job of `count` tasks: what ``function(number)`` yields for each number below `count`, in order. It blocks.

        `function` is called on a Python worker of Spark's, with Spark's own retries. With `barrier` all of them run at the
        same time or not at all. Another thread can stop it by its `tag`.
        """
        frame = self.spark.range(0, count, 1, count).mapInArrow(
            Importing(Numbered(function)), "number long, row binary", barrier=barrier
        )
        if self.classic:
            self.spark.sparkContext.setJobGroup(tag, f"braidwater {tag.partition('-')[0]}", True)
        else:
            self.spark.addTag(tag)
        try:
            found = frame.toArrow()
        except Exception as error:
            raise WorkerError(f"A job of Spark's failed: {short(error)}") from error
        finally:
            if not self.classic:
                self.spark.removeTag(tag)
        rows = zip(found.column(0).to_pylist(), found.column(1).to_pylist(), strict=True)
        return sorted(rows, key=lambda row: row[0])  # stable: the rows of one number stay in their order

    def cancel(self, tag: str) -> None:
        """Stop the job of this tag, if it runs; its tasks are killed and their slots are free."""
        with suppress(Exception):  # the session may be gone, and with it the job
            if self.classic:
                self.spark.sparkContext.cancelJobGroup(tag)
            else:
                self.spark.interruptTag(tag)


def new_tag(what: str) -> str:
    return f"{what}-{uuid.uuid4().hex[:12]}"


def _slots_of(master: str) -> int | None:
    """The slots of a local master.

    >>> _slots_of("local[4,2]"), _slots_of("local-cluster[2,1,1024]"), _slots_of("spark://host:7077")
    (4, 2, None)
    """
    inside = master.partition("[")[2].rstrip("]").split(",")
    if master.startswith("local-cluster["):
        return int(inside[0]) * int(inside[1])
    if not master.startswith("local"):
        return None
    if inside == [""]:
        return 1
    return os.cpu_count() if inside[0] == "*" else int(inside[0])
