"""A line between the driver and a process that Spark has placed: every message is signed.

The key is made for one use of the engine and travels inside Spark's own task, as its functions do. What comes over a line is
looked at, and unpickled, only if it carries the signature of that key for this line, this direction and this place in the
order of messages: HMAC-SHA256 (RFC 2104). Messages are not encrypted; a network that others can read needs Spark's own
encryption and a tunnel.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from braidwater.errors import BadSignatureError, WorkerError

_SIGNATURE = 32  # bytes
_NONCE = 16
_GREETING_SECONDS = 20.0
_QUIET_SECONDS = 30  # after which the system asks whether the other machine is still there


class Line:
    """One end of a line. Any thread may send, one at a time receives.

    A message is a kind (one letter) and bytes. A line that breaks raises EOFError or OSError.
    """

    def __init__(self, connection: Connection, key: bytes, nonce: bytes, *, at_driver: bool) -> None:
        self._connection = connection
        self._key = hmac.digest(key, nonce, "sha256")
        self._ways = (b"d", b"w") if at_driver else (b"w", b"d")
        self._sent = self._received = 0
        self._lock = threading.Lock()

    def fileno(self) -> int:
        return self._connection.fileno()

    def send(self, kind: str, content: bytes = b"") -> None:
        with self._lock:
            head = kind.encode()
            signature = self._signature(self._ways[0], self._sent, head, content)
            self._connection.send_bytes(signature + head)
            self._connection.send_bytes(content)
            self._sent += 1

    def receive(self, longest: int | None = None) -> tuple[str, bytes]:
        """The next message; `BadSignatureError` if it is not the one that the other end sent next."""
        head = self._connection.recv_bytes(_SIGNATURE + 1)
        content = self._connection.recv_bytes(longest)
        expected = self._signature(self._ways[1], self._received, head[_SIGNATURE:], content)
        if not hmac.compare_digest(head[:_SIGNATURE], expected):
            raise BadSignatureError(
                "A message with a wrong signature came over a line of the Spark engine; it was not read."
            )
        self._received += 1
        return head[_SIGNATURE:].decode(), content

    def _signature(self, way: bytes, number: int, head: bytes, content: bytes) -> bytes:
        signer = hmac.new(self._key, way + number.to_bytes(8, "big") + head, "sha256")
        signer.update(content)
        return signer.digest()

    def hang_up(self) -> None:
        """End the line for both ends; a thread that waits for a message here learns of it too."""
        with suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as plain:
            plain.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self._connection.close()


def call(host: str, port: int, key: bytes, ticket: str) -> Line:
    """Call the driver, from inside a task of Spark's, and say who calls."""
    try:
        plain = socket.create_connection((host, port), timeout=_GREETING_SECONDS)
    except OSError as error:
        raise WorkerError(
            f"{socket.gethostname()} cannot reach the driver at {host}:{port} ({error}). Set spark.driver.host to an address "
            "of the driver that the executors can reach, and open the way for them."
        ) from error
    connection = _connected(plain)
    if not connection.poll(_GREETING_SECONDS):
        raise WorkerError(f"The driver at {host}:{port} took the call and said nothing.")
    line = Line(connection, key, connection.recv_bytes(_NONCE), at_driver=False)
    line.send("h", json.dumps({"ticket": ticket, "host": socket.gethostname()}).encode())
    return line


class Switchboard:
    """Takes calls at the driver. ``expect(ticket, taken)``: `taken(line, host)` is called, on a thread, when that call comes."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.key = secrets.token_bytes(32)
        self._expected: dict[str, Callable[[Line, str], None]] = {}
        self._server = _server(host)
        self.port: int = self._server.getsockname()[1]
        self._awake, self._asleep = socket.socketpair()
        self._thread = threading.Thread(target=self._accept, daemon=True, name="braidwater-switchboard")
        self._thread.start()

    def expect(self, ticket: str, taken: Callable[[Line, str], None]) -> None:
        self._expected[ticket] = taken

    def close(self) -> None:
        """Take no more calls. Lines that were taken stay."""
        with suppress(OSError):
            self._awake.send(b"x")
        self._thread.join()

    def _accept(self) -> None:
        while self._asleep not in wait([self._server, self._asleep]):
            with suppress(OSError):
                plain, _ = self._server.accept()
                threading.Thread(
                    target=self._greet, args=(_connected(plain),), daemon=True, name="braidwater-call"
                ).start()
        for one in (self._server, self._asleep, self._awake):
            one.close()

    def _greet(self, connection: Connection) -> None:
        """Whoever does not say a ticket that is expected, signed, within some seconds, is cut off."""
        nonce = secrets.token_bytes(_NONCE)
        line = Line(connection, self.key, nonce, at_driver=True)
        try:
            connection.send_bytes(nonce)
            if connection.poll(_GREETING_SECONDS):
                _, content = line.receive(longest=4096)
                said: dict[str, Any] = json.loads(content)
                taken = self._expected.pop(said["ticket"], None)
                if taken is not None:
                    taken(line, said["host"])
                    return
        except (OSError, EOFError, BadSignatureError):
            pass
        line.close()


def _server(host: str) -> socket.socket:
    try:
        return socket.create_server((host, 0), backlog=128)
    except OSError:  # the address that executors use may be another machine's, which passes calls on to this one
        return socket.create_server(("", 0), backlog=128)


def _connected(plain: socket.socket) -> Connection:
    plain.settimeout(None)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _QUIET_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _QUIET_SECONDS // 3)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)  # a machine that is gone is missed within a minute
    return Connection(plain.detach())
