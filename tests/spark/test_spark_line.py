"""What comes over a line is read only if it was signed for that line, that way and that place in the order of messages."""

from __future__ import annotations

import queue
import secrets
import socket
import threading
from multiprocessing.connection import Client, Pipe

import pytest

from braidwater.engines.spark.line import Line, Switchboard, call
from braidwater.errors import BadSignatureError, WorkerError

KEY, NONCE = secrets.token_bytes(32), secrets.token_bytes(16)


def ends(driver_key=KEY, worker_key=KEY):
    one, other = Pipe()
    return Line(one, driver_key, NONCE, at_driver=True), Line(other, worker_key, NONCE, at_driver=False), one, other


def test_messages_arrive_whole_and_in_order():
    driver, worker, *_ = ends()
    for number in range(5):
        worker.send("m", bytes(number * 1000))
        driver.send("p", b"%d" % number)
    assert [driver.receive() for _ in range(5)] == [("m", bytes(number * 1000)) for number in range(5)]
    assert [worker.receive()[1] for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("what", ["another key", "changed", "twice", "sent back", "another kind"])
def test_what_was_not_said_by_the_other_end_is_refused(what):
    driver, worker, _, plain = ends(worker_key=secrets.token_bytes(32) if what == "another key" else KEY)
    worker.send("m", b"all is well")
    if what == "another key":
        with pytest.raises(BadSignatureError):
            driver.receive()
        return
    head, content = driver._connection.recv_bytes(), driver._connection.recv_bytes()
    if what == "sent back":  # the worker's own words, by somebody in between
        driver._connection.send_bytes(head)
        driver._connection.send_bytes(content)
        with pytest.raises(BadSignatureError):
            worker.receive()
        return
    for _ in range(2 if what == "twice" else 1):
        plain.send_bytes(head[:-1] + b"f" if what == "another kind" else head)
        plain.send_bytes(b"all is lost" if what == "changed" else content)
    if what == "twice":
        driver.receive()
    with pytest.raises(BadSignatureError, match="not read"):
        driver.receive()


def test_the_switchboard_takes_those_it_expects_and_cuts_off_all_others():
    before = set(threading.enumerate())
    board = Switchboard("127.0.0.1")
    taken: queue.Queue[tuple[Line, str]] = queue.Queue()
    board.expect("ticket", lambda line, host: taken.put((line, host)))
    stranger = call("127.0.0.1", board.port, secrets.token_bytes(32), "ticket")
    with pytest.raises((EOFError, OSError)):
        stranger.receive()
    with pytest.raises((EOFError, OSError)):
        call("127.0.0.1", board.port, board.key, "another ticket").receive()
    with Client(("127.0.0.1", board.port)) as rude:
        rude.recv_bytes()  # the nonce
        rude.send_bytes(b"x" * 5000)
        with pytest.raises((EOFError, OSError)):
            rude.recv_bytes()
    ours = call("127.0.0.1", board.port, board.key, "ticket")
    line, host = taken.get(timeout=5)
    assert host == socket.gethostname()
    line.send("a", b"welcome")
    assert ours.receive() == ("a", b"welcome")
    board.close()
    for one in (line, ours, stranger):
        one.close()
    for thread in set(threading.enumerate()) - before:  # who has answered ends a moment later
        if thread.name.startswith("braidwater-"):
            thread.join(timeout=30)
            assert not thread.is_alive()


def test_a_driver_that_cannot_be_reached_is_named_with_the_way_out():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(WorkerError, match=rf"127.0.0.1:{port}.*spark.driver.host"):
        call("127.0.0.1", port, KEY, "ticket")
