"""The process of a fork server: it has imported what workers need, and forks them on request (see `fork_server`).

It has one Python thread and starts no work of its own, which is what makes its forks safe: no lock is held, no pool of threads
exists that a child would miss.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import random
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from selectors import EVENT_READ, DefaultSelector
from typing import Any

_PARENT_DEATH_SIGNAL = 1  # of prctl(2)
_LONGEST_REQUEST = 1 << 16  # bytes


def main(control: int) -> None:
    """Serve requests that come over the socket `control`, until its other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the starter decides
    _ForkServer(control).serve()


class _ForkServer:
    def __init__(self, control: int) -> None:
        self._control = socket.socket(fileno=control)
        self._selector = DefaultSelector()
        self._selector.register(self._control, EVENT_READ)
        self._workers: dict[
            int, tuple[int, int]
        ] = {}  # by the handle of a worker: its number, and where its end is told

    def serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fd in self._workers:
                    self._bury(key.fd)
                elif not self._answer():
                    return

    def _answer(self) -> bool:
        """Take a request. False when nobody is there to ask any more.

        It names the worker's function, then modules to import first, and brings where to tell of its end, its connection,
        and its standard streams.
        """
        request, descriptors, _, _ = socket.recv_fds(self._control, _LONGEST_REQUEST, 4)
        if not request:
            return False
        status, *given = descriptors
        function, *preload = request.decode().split()
        for name in preload:
            _import(name)
        server = os.getpid()
        process = os.fork()
        if process == 0:
            _die_with(server)
            self._forget(status)
            _work(function, given)
        for descriptor in given:
            os.close(descriptor)
        handle = os.pidfd_open(process)
        with socket.socket(fileno=os.dup(status)) as line, suppress(OSError):
            socket.send_fds(line, [str(process).encode()], [handle])
        self._workers[handle] = process, status
        self._selector.register(handle, EVENT_READ)
        return True

    def _bury(self, handle: int) -> None:
        """Tell the starter how a worker ended."""
        process, status = self._workers.pop(handle)
        _, how = os.waitpid(process, 0)
        with socket.socket(fileno=status) as line, suppress(OSError):  # the starter may be gone
            line.send(str(os.waitstatus_to_exitcode(how)).encode())
        self._selector.unregister(handle)
        os.close(handle)

    def _forget(self, status: int) -> None:
        """In a worker: close what is the server's, else an end that a worker still holds would never seem closed."""
        os.close(status)
        for handle, (_, other) in self._workers.items():
            os.close(handle)
            os.close(other)
        self._selector.close()
        self._control.close()


def _die_with(server: int) -> None:
    """Have this worker killed when the server dies: nobody would hear of its end any more."""
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(1)


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception:  # the worker will meet it again, where it is somebody's to handle
        traceback.print_exc()


def _work(function: str, descriptors: list[int]) -> None:
    """The life of a worker, as if it were a program of its own that the starter had begun just now."""
    code = 1
    try:
        connection, *standard = descriptors
        for number, descriptor in enumerate(standard, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        _take_over(Connection(os.dup(connection)).recv())
        module, name = function.split(":")
        run: Callable[[int], Any] = getattr(importlib.import_module(module), name)
        run(connection)
        code = 0
    except (EOFError, OSError):  # nobody waits for this worker any more
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _take_over(circumstances: tuple[dict[str, str], str, list[str]]) -> None:
    environment, folder, path = circumstances
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:] = path
    random.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # else all workers would draw the same numbers
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
