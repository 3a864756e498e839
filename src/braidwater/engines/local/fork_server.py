"""Starting worker processes: forked by a process that has imported what they need.

A worker that is a fresh Python program spends 2-4 s of CPU on importing torch and what an optimizer's first step asks for. So
the first worker starts a *fork server*, a fresh program too, that imports once; workers are forks of it. It has no threads, no
open connections and nothing of the main script, so that neither hangs of fork nor the ``__main__`` guard of spawn are met
(`docs/decisions/0005-workers-are-programs.md`). It ends with the process that started it. Where the system has no
`pidfd_open` (Linux 5.3 has), workers are fresh programs.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, Pipe
from typing import Protocol

_BOOT = "from braidwater.engines.local.fork_server_process import main; main({line})"
_PROGRAM = "from {module} import {name}; {name}({line})"
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_FORKS = hasattr(os, "pidfd_open") and sys.platform == "linux"
_PATIENCE = 5.0  # seconds for the server to leave: it may be in the middle of an import
_KILLED = -int(signal.SIGKILL)


class Process(Protocol):
    """A worker process as who started it sees it, on this machine or on another one."""

    connection: Connection
    lost: str  # how it came that nobody knows how it ended, where its machine or its line is gone

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def kill(self) -> None: ...


class Start(Protocol):
    """Starts worker processes: `WorkerProcess` on this machine; an engine may have another place for them."""

    def __call__(self, function: str, *, preload: Sequence[str] = ()) -> Process: ...


class WorkerProcess:
    """A worker process that runs `function` ("module:name") on the other end of `connection`.

    `preload` names modules that a fork server imports before, for all workers to come. `environment` adds to this process's
    own. The worker sees the folder, the module path and the standard streams that this process has now.
    """

    lost = ""

    def __init__(
        self, function: str, *, preload: Sequence[str] = (), environment: dict[str, str] | None = None
    ) -> None:
        self.connection, theirs = Pipe()
        whole = {**os.environ, **(environment or {})}
        start = _forked if _FORKS else _launched
        self._process: _Fork | subprocess.Popen[bytes] = start(function, self.connection, theirs, preload, whole)
        theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, for `timeout` seconds at most (`subprocess.TimeoutExpired`). The exit code."""
        return self._process.wait(timeout)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()


def _launched(
    function: str, line: Connection, theirs: Connection, preload: Sequence[str], environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    module, name = function.split(":")
    code = _PROGRAM.format(module=module, name=name, line=theirs.fileno())
    return _run_python(code, theirs.fileno(), environment)


def _run_python(code: str, line: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A fresh program, told by its file descriptor `line` what to do."""
    environment = {**environment, "PYTHONPATH": os.pathsep.join(_path())}
    with _interrupts_held():
        return subprocess.Popen(
            [sys.executable, "-c", code], pass_fds=[line], env=environment, stdin=subprocess.DEVNULL
        )


def _forked(
    function: str, line: Connection, theirs: Connection, preload: Sequence[str], environment: dict[str, str]
) -> _Fork:
    fork = _server().fork(function, theirs.fileno(), preload)
    with suppress(OSError):  # it died at once: who waits for it finds out
        line.send((environment, os.getcwd(), _path()))
    return fork


def _path() -> list[str]:
    return [os.path.abspath(entry) for entry in sys.path]


class _Fork:
    """A fork of the server, with the methods of `subprocess.Popen`. Threads may share it."""

    def __init__(self, status: socket.socket) -> None:
        self._status = status
        self._lock = threading.Lock()
        told, descriptors, _, _ = socket.recv_fds(status, 64, 1)
        if not descriptors:
            raise ChildProcessError("The server of worker processes died while it started a worker; start it again.")
        self.pid = int(told)
        self._handle = descriptors[0]
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with self._lock:
            if self.returncode is None and select.select([self._status], [], [], 0)[0]:
                self._note_end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise subprocess.TimeoutExpired("worker", timeout or 0)
            with suppress(OSError, ValueError):  # another thread has seen its end
                select.select([self._status], [], [], left)
        return code

    def kill(self) -> None:
        with self._lock:
            if self.returncode is None:
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def _note_end(self) -> None:
        told = b""
        with suppress(OSError):
            told = self._status.recv(64)
        if not told:  # the server died: nobody would hear of this worker's end
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        self.returncode = int(told) if told else _KILLED
        self._status.close()
        os.close(self._handle)

    def __del__(self) -> None:
        if self.__dict__.get("returncode", 0) is None:
            self._status.close()
            os.close(self._handle)


class _ForkServer:
    """The server's process, seen from the one that started it."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        # children set their own numbers of threads; a pool that exists before the fork would be lost to them
        environment = {**os.environ, **_ONE_THREAD}
        self._process = _run_python(_BOOT.format(line=theirs.fileno()), theirs.fileno(), environment)
        theirs.close()

    @property
    def lives(self) -> bool:
        return self.owner == os.getpid() and self._process.poll() is None

    def fork(self, function: str, connection: int, preload: Sequence[str]) -> _Fork:
        status, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._lock:
            request = " ".join([function, *preload]).encode()
            socket.send_fds(self._control, [request], [theirs.fileno(), connection, 1, 2])
        return _Fork(status)

    def close(self) -> None:
        """It leaves by itself when there is nobody to ask it for anything, and takes its workers along."""
        self._control.close()
        if self.owner == os.getpid():
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


_running: list[_ForkServer] = []
_starting = threading.Lock()


def _server() -> _ForkServer:
    with _starting:
        if not (_running and _running[0].lives):
            _end()
            _running[:] = [_ForkServer()]
        return _running[0]


def running() -> bool:
    """Whether a fork server has been started, so that a worker is up in a tenth of a second."""
    return bool(_running) and _running[0].lives


@atexit.register
def _end() -> None:
    for server in _running:
        server.close()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C reaches the whole group of processes: one that is only starting must not die of it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
