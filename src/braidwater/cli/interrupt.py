"""Ctrl-C while a kernel computes: Python itself hears of it when the kernel returns, which may take minutes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 0.3  # seconds for the usual way, in which files are closed and whoever waits is told


@contextmanager
def answered_at_once() -> Iterator[None]:
    """Inside, Ctrl-C ends the process soon, also while the main thread is in a call that knows nothing of signals.

    For a process that has nothing to lose but its work. Needs the main thread.
    """
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    before = signal.set_wakeup_fd(writes)
    left = threading.Event()
    threading.Thread(target=_watch, args=(reads, left), name="braidwater-interrupt", daemon=True).start()
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(before)
        os.close(writes)


def _watch(reads: int, left: threading.Event) -> None:
    while heard := os.read(reads, 1):  # nothing when the other end was closed
        if heard[0] == signal.SIGINT and not left.wait(PATIENCE):
            sys.stdout.flush()  # what was printed is in a buffer where nobody watches a terminal
            os.write(2, b"Stopped.\n")
            os._exit(130)
    os.close(reads)
