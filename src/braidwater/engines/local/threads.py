"""Worker threads: started for one pass, stopped with it whatever happens."""

from __future__ import annotations

import queue
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import lru_cache
from threading import Event, Thread
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Other = TypeVar("Other")


def run_threads(work: Callable[[int], Iterator[Item]], workers: int) -> Iterator[Item]:
    """What ``work(0)`` to ``work(workers - 1)`` yield, as it comes; worker 0 is the caller's own thread.

    The first error of a worker is raised here once the others have stopped. Leaving the iterator early (an error of the
    caller, Ctrl-C) stops all of them. BLAS is held to one thread meanwhile: the blocks are what is parallel.
    """
    with one_blas_thread():
        results: queue.Queue[Any] = queue.Queue(maxsize=8 * workers)
        stop = Event()
        threads = [_start(work, worker, results, stop) for worker in range(1, workers)]
        running = len(threads)
        try:
            for item in work(0):
                yield item
                while running and not results.empty():
                    running -= yield from _take(results)
            while running:
                running -= yield from _take(results)
        finally:
            stop.set()
            for thread in threads:
                thread.join()


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


_DONE = object()


def _start(work: Callable[[int], Iterator[Any]], worker: int, results: queue.Queue[Any], stop: Event) -> Thread:
    def run() -> None:
        try:
            for item in work(worker):
                if not _put(results, item, stop):
                    return
            _put(results, _DONE, stop)
        except BaseException as error:
            _put(results, _Failure(error), stop)

    # options and listeners are context variables: a thread sees those of the caller
    thread = Thread(target=copy_context().run, args=(run,), name=f"braidwater-{worker}", daemon=True)
    thread.start()
    return thread


def _put(results: queue.Queue[Any], item: object, stop: Event) -> bool:
    """Hand over an item, unless nobody is there any more to take it."""
    while not stop.is_set():
        try:
            results.put(item, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False


def _take(results: queue.Queue[Any]) -> Generator[Any, None, int]:
    """Yield the next result there is, or wait for it. Returns how many workers have ended by it."""
    item = results.get()
    if item is _DONE:
        return 1
    if isinstance(item, _Failure):
        raise item.error
    yield item
    return 0


def map_in_order(items: Iterator[Item], function: Callable[[Item], Other], workers: int) -> Iterator[Other]:
    """``map(function, items)`` on threads, in order, at most ``2 * workers`` items ahead of who takes the results."""
    if workers == 1:
        yield from map(function, items)
        return
    ahead: deque[Future[Other]] = deque()
    with one_blas_thread(), ThreadPoolExecutor(workers, "braidwater-map") as pool:
        try:
            for item in items:
                ahead.append(pool.submit(copy_context().run, function, item))
                if len(ahead) >= 2 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS on one thread: with several the sums, and so the last digits of a result, would depend on their number."""
    with _controller(frozenset(name for name in ("numpy", "scipy", "torch", "sklearn") if name in sys.modules)).limit(
        limits=1, user_api="blas"
    ):
        yield


@lru_cache(maxsize=16)
def _controller(loaded: frozenset[str]) -> ThreadpoolController:
    """Looking for the libraries takes milliseconds: once for each set of those that are loaded."""
    return ThreadpoolController()
