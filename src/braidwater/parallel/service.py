"""A service: one worker answers the others, each on a connection and a thread of its own."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from threading import Thread

import torch

from braidwater.engines.address import HOST
from braidwater.engines.base import Member
from braidwater.errors import WorkerError


class Service:
    """Calls ``serve(connection)`` on a thread for each worker that connects, until `close`.

    It listens at the address by which the gang knows `member` (this machine alone, where all of the gang is on it), on a port of
    its own, and leaves both under `name` in the gang's store. Only who knows `key` is let in; what is said after is neither
    signed nor encrypted, as with gloo.
    """

    def __init__(self, member: Member, name: str, key: bytes, serve: Callable[[Connection], None]) -> None:
        self._serve = serve
        self._key = key
        self.failure: BaseException | None = None
        self._server = _server(member.host)
        Thread(target=self._accept, daemon=True, name=f"braidwater-{name}").start()
        member.store.set(name, f"{member.host} {self._server.getsockname()[1]}")

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._server.accept()
                Thread(target=self._answer, args=(_connected(caller),), daemon=True, name="braidwater-answer").start()

    def _answer(self, connection: Connection) -> None:
        """On a thread of the caller's own from its first word on: a stranger who says nothing keeps nobody out."""
        try:
            with connection, suppress(EOFError, ConnectionError):
                if self._knows_key(connection):
                    self._serve(connection)
        except BaseException as error:
            self.failure = error  # who made the service looks for it: nobody listens to this thread

    def _knows_key(self, connection: Connection) -> bool:
        with suppress(AuthenticationError, AssertionError, OSError):
            deliver_challenge(connection, self._key)
            answer_challenge(connection, self._key)
            return True
        return False


def connect(member: Member, name: str, key: bytes, seconds: float) -> Connection:
    """A connection to the service `name` of the gang, once it is there; waits at most `seconds`."""
    try:
        member.store.wait([name], timedelta(seconds=seconds))
    except RuntimeError as error:
        raise WorkerError(f"The {name} did not start within {seconds:g} s (timed out).") from error
    host, port = member.store.get(name).decode().split()
    try:
        connection = _connected(socket.create_connection((host, int(port)), timeout=seconds))
        if not connection.poll(seconds):
            raise TimeoutError("it timed out")
        answer_challenge(connection, key)
        deliver_challenge(connection, key)
    except (OSError, EOFError, AuthenticationError) as error:
        raise WorkerError(
            f"Worker {member.rank} at {member.host} cannot reach the {name} at {host}:{port} ({error}). The machines of a gang "
            f"must reach each other on all ports; on one that has several addresses, {HOST} names the right one."
        ) from error
    return connection


def send_tensor(connection: Connection, flat: torch.Tensor) -> int:
    """Send the numbers of a vector as they lie; their bytes."""
    data = flat.detach().cpu().contiguous().view(torch.uint8).numpy().data
    connection.send_bytes(data)
    return data.nbytes


def receive_tensor(connection: Connection, flat: torch.Tensor) -> int:
    """Fill a vector (on the processor) with what `send_tensor` sent; its bytes."""
    return connection.recv_bytes_into(flat.view(torch.uint8).numpy().data)


def _server(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, 0), family=family, backlog=64)
    except OSError:  # the address that others use may be a machine's that passes calls on to this one
        return socket.create_server(("", 0), family=family, backlog=64)


def _connected(caller: socket.socket) -> Connection:
    caller.settimeout(None)
    # small messages leave at once: they are questions that somebody waits to have answered
    caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Connection(caller.detach())
