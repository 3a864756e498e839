"""A service: one worker answers the others, each on a connection and a thread of its own."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from threading import Thread
from typing import Any

import torch

from braidwater.errors import WorkerError


class Service:
    """Calls ``serve(connection)`` on a thread for each worker that connects, until `close`.

    Its address stands under `name` in `store` (`Member.store`). Only who knows `key` is let in.
    """

    def __init__(self, store: Any, name: str, key: bytes, serve: Callable[[Connection], None]) -> None:
        self._serve = serve
        self._open = True
        self.failure: BaseException | None = None
        self._listener = Listener(("127.0.0.1", 0), backlog=64, authkey=key)
        Thread(target=self._accept, daemon=True, name=f"braidwater-{name}").start()
        host, port = self._listener.address
        store.set(name, f"{host}:{port}")

    def close(self) -> None:
        self._open = False
        self._listener.close()

    def _accept(self) -> None:
        while self._open:
            try:
                connection = self._listener.accept()
            except (OSError, EOFError, AuthenticationError):
                continue
            _without_delay(connection)
            Thread(target=self._answer, args=(connection,), daemon=True, name="braidwater-answer").start()

    def _answer(self, connection: Connection) -> None:
        try:
            with connection, suppress(EOFError, ConnectionError):
                self._serve(connection)
        except BaseException as error:
            self.failure = error  # who made the service looks for it: nobody listens to this thread


def connect(store: Any, name: str, key: bytes, seconds: float) -> Connection:
    """A connection to the service `name`, once it is there; waits at most `seconds`."""
    try:
        store.wait([name], timedelta(seconds=seconds))
    except RuntimeError as error:
        raise WorkerError(f"The {name} did not start within {seconds:g} s (timed out).") from error
    host, _, port = store.get(name).decode().rpartition(":")
    connection = Client((host, int(port)), authkey=key)
    _without_delay(connection)
    return connection


def send_tensor(connection: Connection, flat: torch.Tensor) -> int:
    """Send the numbers of a vector as they lie; their bytes."""
    data = flat.detach().cpu().contiguous().view(torch.uint8).numpy().data
    connection.send_bytes(data)
    return data.nbytes


def receive_tensor(connection: Connection, flat: torch.Tensor) -> int:
    """Fill a vector (on the processor) with what `send_tensor` sent; its bytes."""
    return connection.recv_bytes_into(flat.view(torch.uint8).numpy().data)


def _without_delay(connection: Connection) -> None:
    """Small messages leave at once: they are questions that somebody waits to have answered."""
    with socket.socket(fileno=connection.fileno()) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.detach()  # the connection goes on to own the file descriptor
