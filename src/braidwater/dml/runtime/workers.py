"""Threads for the parts of a scan, and the number of threads inside BLAS: both are decided here, never left to chance."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import ThreadpoolController

from braidwater.dml.scipy_on_demand import after_import

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor


def run_parts(run: Callable[[int], None], parts: int, threads: int) -> None:
    """``run(0)`` to ``run(parts - 1)`` on threads, the caller's among them; the first error is raised when all have stopped."""
    workers = min(threads, parts)
    if workers <= 1:
        for part in range(parts):
            run(part)
        return
    numbers = iter(range(parts))
    stopped: list[bool] = []

    def work() -> None:
        try:
            with np.errstate(all="ignore"):
                for part in numbers:
                    if stopped:
                        return
                    run(part)
        except BaseException:
            stopped.append(True)
            raise

    others = [_pool(os.getpid(), workers).submit(work) for _ in range(workers - 1)]
    try:
        work()
    finally:
        failures = [other.exception() for other in others]
    for failure in failures:
        if failure is not None:
            raise failure


@lru_cache(maxsize=4)
def _pool(process: int, workers: int) -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor  # brings logging: a script of small matrices needs neither

    return ThreadPoolExecutor(max_workers=workers - 1, thread_name_prefix="braidwater-dml")


class BlasThreads:
    """How many threads a BLAS call takes: one inside `held`, unless `all_of` says otherwise for one large product.

    The setting is the process's; the caller's comes back when the outermost `held` ends. Two threads on products of a few
    thousand cells cost up to 60 times the CPU of one, and threads of a scan that each start more fight for the cores.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._depth = 0
        self._before: list[tuple[Any, int]] = []
        self._now = 1

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._lock:
            if self._depth == 0:
                self._before = [(library, library.num_threads) for library in _libraries()]
                self._set(1)
            self._depth += 1
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if self._depth == 0:
                    for library, threads in self._before:
                        library.set_num_threads(threads)

    @contextmanager
    def all_of(self, threads: int) -> Iterator[None]:
        self._set(threads)
        try:
            yield
        finally:
            self._set(1)

    def look_again(self) -> None:
        """A library was imported that may bring one more BLAS: what holds for the others holds for it."""
        with self._lock:
            known = {library.filepath for library in _libraries()}
            _libraries.cache_clear()
            if self._depth:
                self._before += [(each, each.num_threads) for each in _libraries() if each.filepath not in known]
                self._set(self._now)

    def _set(self, threads: int) -> None:
        self._now = threads
        for library in _libraries():
            library.set_num_threads(threads)


@lru_cache(maxsize=1)
def _libraries() -> tuple[Any, ...]:
    """The BLAS libraries that are loaded (numpy and scipy bring one each)."""
    return tuple(ThreadpoolController().select(user_api="blas").lib_controllers)


blas = BlasThreads()
after_import.append(blas.look_again)
