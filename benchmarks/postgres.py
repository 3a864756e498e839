"""Training inside PostgreSQL: CPU seconds of the server and the client together, one BLAS thread.

python benchmarks/postgres.py --rows 1000000 --repeat 3

Starts a server of its own (as the tests do), fills a table of 20 doubles and a label, and measures packing once, then models
over warm sessions, on one session and on two: on two free cores the second line of a job should take at most 1/1.7 of the
time of the first. Nets have one hidden layer and are averaged after each of two epochs; the smaller one is that of MADlib's
`mlp_classification`, whose figure does not have the 10.7 s in it that its preprocessor takes. Four nets hop from session to
session. Scripts in DML (`lmDS` and `glm` of its library) scan the table in the sessions too. CPU is that of this process and of
the server's sessions. The figures of MADlib 2.1 for the same work on the same kind of machine (PostgreSQL 15, two cores) are
printed beside ours; they were measured apart, not in this run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import numpy as np
import psycopg

from braidwater import Averaging, KMeans, LinearRegression, LogisticRegression, Trainer, dml, table
from braidwater.deep.modules import MLP
from braidwater.engines.postgres import PostgresEngine
from braidwater.engines.postgres.install import install
from braidwater.engines.postgres.packing import pack
from braidwater.errors import ConvergenceWarning
from braidwater.events import Event, PassFinished, listen
from braidwater.model_selection import hop
from postgres_server import Server, remove_server, start_server

FEATURES = [f"x{number}" for number in range(20)]
SMALL = "net 21-32-2, 2 epochs"
SCRIPTS = {  # the columns of the table are the features, the number and the class
    "linear regression, a script": "B = lmDS(X=D[, 1:20], y=D[, 21], icpt=1, verbose=FALSE)",
    "logistic regression, a script": "B = glm(X=D[, 1:20], Y=D[, 22], dfam=2, link=2, verbose=FALSE)",
}
MADLIB = {"linear regression": 0.59, "logistic regression": 8.44, "k-means, k=8, 5 iterations": 15.6, SMALL: 5.63}


def server_seconds(server: Server) -> float:
    """CPU seconds of the sessions that are open; not of vacuum and checkpoints, which come when they come."""
    postmaster = (server.folder / "data" / "postmaster.pid").read_text().split()[0]
    total = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            title = (folder / "cmdline").read_text()
        except OSError:
            continue
        if fields[1] == postmaster and "127.0.0.1" in title:
            total += sum(map(int, fields[11:13]))
    return total / os.sysconf("SC_CLK_TCK")


def measured(server: Server, work: Callable[[], object], repeat: int) -> dict[str, float]:
    """The least of `repeat` runs: neighbours only add. `passes` are their wall seconds without what opens and closes a fit."""
    found = []
    for _ in range(repeat):
        seconds: list[float] = []

        def hear(event: Event, into: list[float] = seconds) -> None:
            if isinstance(event, PassFinished):
                into.append(event.seconds)

        cpu, begun = server_seconds(server) + time.process_time(), time.perf_counter()
        with listen(hear):
            work()
        wall = time.perf_counter() - begun
        found.append((server_seconds(server) + time.process_time() - cpu, wall, sum(seconds)))
    return {
        name: round(min(values), 3)
        for name, values in zip(("cpu", "wall", "passes"), zip(*found, strict=True), strict=True)
    }


def fill(address: str, rows: int) -> None:
    columns = ", ".join(f"(random() * 2 - 1)::float8 AS {name}" for name in FEATURES)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(
            f"CREATE TABLE points AS SELECT *, x0 - x1 + random() AS t, (random() < 1 / (1 + exp(-x0 - x1)))::int AS y FROM "
            f"(SELECT {columns} FROM generate_series(1, {rows})) AS drawn"
        )
        connection.execute("VACUUM ANALYZE points")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)  # five iterations are what is compared
    server = start_server(shared_buffers="1GB")
    results: dict[str, dict[str, float]] = {}
    try:
        install(server.address())
        fill(server.address(), given.rows)
        rows = table(f"{server.address()}::points")
        for workers in (1, 2):
            with PostgresEngine(server.address(), workers, executor="sessions") as engine:
                if workers == 1:
                    results["packing"] = measured(
                        server, lambda e=engine: pack(e.sessions.lead, rows, [*FEATURES, "t"]), 1
                    )
                suffix = "" if workers == 1 else ", two sessions"
                jobs: dict[str, Callable[[], object]] = {
                    "linear regression": lambda e=engine: LinearRegression().fit(
                        rows, label="t", exclude=["y"], engine=e
                    ),
                    "logistic regression": lambda e=engine: LogisticRegression().fit(
                        rows, label="y", exclude=["t"], engine=e
                    ),
                    "k-means, k=8, 5 iterations": lambda e=engine: KMeans(8, init=_centers(), max_iter=5, n_init=1).fit(
                        rows, features=FEATURES, engine=e
                    ),
                    SMALL: lambda e=engine: small_net(e.workers).fit(rows, label="y", features=FEATURES, engine=e),
                    "net, 100 hidden, 2 epochs": lambda e=engine: net(e.workers).fit(
                        rows, label="y", features=FEATURES, engine=e
                    ),
                    "four nets that hop, 1 epoch": lambda e=engine: hop(
                        hopping_nets(), rows, label="y", features=FEATURES, engine=e
                    ),
                }
                for name, script in SCRIPTS.items():
                    jobs[name] = lambda e=engine, s=script: dml.run(s, {"D": rows}, ["B"], engine=e)
                for name, work in jobs.items():
                    work()  # kernels are compiled, blocks are kept
                    results[name + suffix] = measured(server, work, given.repeat)
    finally:
        remove_server(server)
    for name in [name for name in results if f"{name}, two sessions" in results]:
        one, two = results[name], results[f"{name}, two sessions"]
        two["times one session"] = round(one["wall"] / two["wall"], 2)
        two["in the passes"] = round(one["passes"] / two["passes"], 2) if two["passes"] else float("nan")
    for name, found in results.items():
        beside = f"   MADlib 2.1: {MADLIB[name]} CPU s" if name in MADLIB and given.rows == 1_000_000 else ""
        print(f"{name:<42} {found['cpu']:7.3f} CPU s {found['wall']:7.3f} s{beside}{gain(found)}")
    if given.json:
        given.json.write_text(json.dumps({"rows": given.rows, "load": os.getloadavg(), "results": results}, indent=1))


def net(workers: int) -> Trainer:
    strategy = Averaging(workers=workers)
    return Trainer(
        MLP, module_arguments={"hidden": [100]}, epochs=2, batch_size=256 * workers, strategy=strategy, seed=1
    )


def small_net(workers: int) -> Trainer:
    return Trainer(
        MLP, module_arguments={"hidden": [32]}, epochs=2, batch_size=200 * workers, strategy=Averaging(workers=workers),
        optimizer="sgd", learning_rate=0.01, seed=1,
    )  # fmt: skip


def hopping_nets() -> list[Trainer]:
    rates = (1e-3, 3e-3, 1e-2, 3e-2)
    return [
        Trainer(MLP, module_arguments={"hidden": [100]}, epochs=1, batch_size=256, learning_rate=rate) for rate in rates
    ]


def gain(found: dict[str, float]) -> str:
    if "times one session" not in found:
        return ""
    return f"   {found['times one session']:.2f} times as fast as one, {found['in the passes']:.2f} in the passes"


def _centers() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (8, len(FEATURES)))


if __name__ == "__main__":
    main()
