"""Ctrl-C while a kernel computes: Python itself hears of it when the kernel returns, which may take minutes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

PATIENCE = 0.3  # seconds for Python to hear of it, after which files are closed and whoever waits is told


@contextmanager
def answered_at_once() -> Iterator[None]:
    """Inside, Ctrl-C ends the process soon, also while the main thread is in a call that knows nothing of signals.

    Where Python hears of it, all goes the usual way, however long cleaning up takes. For a process that has nothing to lose but
    its work. Needs the main thread.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # ignored, as in a job in the background, or somebody else's business
        yield
        return
    heard = threading.Event()

    def hear(number: int, frame: FrameType | None) -> None:
        heard.set()
        signal.default_int_handler(number, frame)

    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    signal.signal(signal.SIGINT, hear)
    wakeup = signal.set_wakeup_fd(writes)
    threading.Thread(target=_watch, args=(reads, heard), name="braidwater-interrupt", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGINT, before)
        os.close(writes)


def _watch(reads: int, heard: threading.Event) -> None:
    while told := os.read(reads, 1):  # nothing when the other end was closed
        if told[0] == signal.SIGINT and not heard.wait(PATIENCE):
            with suppress(OSError, ValueError):
                sys.stdout.flush()  # what was printed is in a buffer where nobody watches a terminal
            os.write(2, b"Stopped.\n")
            os._exit(130)
    os.close(reads)
