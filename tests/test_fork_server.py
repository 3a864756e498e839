"""Workers are forks of a program that has only imported: like fresh programs in all but their price."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from braidwater.engines import LocalEngine, Task
from braidwater.engines.local import fork_server
from braidwater.engines.local.gang import run_gang
from braidwater.errors import WorkerLostError

pytestmark = pytest.mark.skipif(not fork_server._FORKS, reason="this system has no pidfd_open")


def ask(function):
    (outcome,) = LocalEngine(workers=1).tasks([Task("ask", function)])
    if outcome.error is not None:
        raise outcome.error
    return outcome.value


def test_a_worker_sees_what_its_starter_has_now(tmp_path, monkeypatch, capfd):
    ask(os.getpid)  # the server runs, from before what follows
    monkeypatch.setenv("TOLD_LATE", "yes")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "written_late.py").write_text("def where():\n    import os\n    return os.getcwd()\n")
    import written_late

    def look():
        print("on standard output", flush=True)
        return os.environ.get("TOLD_LATE"), os.environ.get("HOME"), sys.stdin.read()

    assert ask(written_late.where) == str(tmp_path)
    assert ask(look) == ("yes", None, "")
    assert "on standard output" in capfd.readouterr().out


def test_workers_draw_numbers_of_their_own():
    def member(_):
        return float(np.random.random()), float(__import__("random").random())

    drawn = run_gang(member, 3)
    assert len({first for first, _ in drawn}) == len({second for _, second in drawn}) == 3


def test_nothing_of_the_server_or_of_other_workers_is_open_in_a_worker():
    def member(_):
        import torch.distributed as dist

        dist.barrier()
        files = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        return sum(os.readlink(file) == "anon_inode:[pidfd]" for file in files if os.path.exists(file))

    assert run_gang(member, 2) == [0, 0]


def test_a_server_that_was_killed_takes_its_workers_along_and_is_replaced():
    ask(os.getpid)
    server = fork_server._server()._process.pid

    def dig():
        if os.getppid() == server:
            os.kill(server, signal.SIGKILL)
            time.sleep(60)
        return os.getppid()

    begun = time.monotonic()
    with pytest.raises(WorkerLostError, match="SIGKILL"):
        ask(dig)
    assert ask(dig) == fork_server._server()._process.pid != server
    assert time.monotonic() - begun < 30


def test_a_killed_worker_is_waited_for_and_named():
    worker = fork_server.WorkerProcess("time:sleep")  # sleeps for as many seconds as its descriptor says
    assert worker.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(0.05)
    worker.kill()
    assert worker.wait(10) == worker.poll() == -signal.SIGKILL
    worker.kill()  # nobody is hit
