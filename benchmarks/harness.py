"""Peers side by side in one run: each contender in a process of its own, in turns, CPU beside wall time.

A benchmark is a file that makes a `Benchmark`, registers its contenders and calls `main()`::

    bench = Benchmark("logistic regression to the optimum", rows=2_000_000)

    @bench.contender("braidwater", ours=True)
    def braidwater(data: Path) -> str: ...

    if __name__ == "__main__":
        bench.main()

What is measured is the call of the function: imports are done before, in a warm-up round that is not counted (so compiled
kernels are in their cache, a JVM is up). Each contender returns a text that says what it found, so that a fast wrong answer
shows; or `Found` with numbers of its own; or a function that returns either, called after the clock was stopped. A contender
whose package is not installed is left out with the reason. Figures are medians over the rounds; a ratio is the peer's median
divided by ours.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from machine import busy_seconds, machine, versions

Run = Callable[[Path], Any]
RESULTS = Path(__file__).parent / "results"


@dataclass
class Found:
    """What a contender found, and numbers that it measured itself; `wall` and `cpu` take the place of the harness's."""

    text: str
    values: dict[str, float] = field(default_factory=dict)
    wall: float | None = None
    cpu: float | None = None


@dataclass
class Figures:
    """One contender's medians over the rounds: seconds, bytes at the highest, and what it found."""

    name: str
    wall: float
    cpu: float
    peak: int
    found: str
    ours: bool = False
    values: dict[str, float] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)


class Benchmark:
    """A question of speed, and those who answer it. `make_data(folder, rows)` writes what the contenders read."""

    def __init__(self, title: str, *, rows: int, make_data: Callable[[Path, int], None] | None = None) -> None:
        self.title = title
        self.rows = rows
        self._make_data = make_data
        self._contenders: dict[str, tuple[Run, bool]] = {}
        self._file = Path(sys.argv[0]).resolve()
        self._skipped: dict[str, str] = {}
        self._once: set[str] = set()

    def contender(self, name: str, *, ours: bool = False, once: bool = False) -> Callable[[Run], Run]:
        """Register a function that is called with the folder of the data. The first of `ours` is what peers are held against.

        `once` is for a slow one: it takes part in the first round only.
        """

        def register(run: Run) -> Run:
            self._contenders[name] = (run, ours)
            if once:
                self._once.add(name)
            return run

        return register

    def main(self) -> None:
        """The command line of a benchmark."""
        parser = argparse.ArgumentParser(description=self.title)
        parser.add_argument("--rows", type=int, default=self.rows)
        parser.add_argument("--rounds", type=int, default=3)
        parser.add_argument("--quick", action="store_true", help="a tenth of the rows, one round: to see that it works")
        parser.add_argument("--only", action="append", help="contenders to run (by default all)")
        parser.add_argument("--results", type=Path, default=RESULTS, help="the folder for the figures as JSON")
        parser.add_argument("--in-process", help=argparse.SUPPRESS)
        parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
        given = parser.parse_args()
        if given.quick:
            given.rows, given.rounds = given.rows // 10, 1
        if given.in_process:
            self._measure(given.in_process, given.data)
            return
        with tempfile.TemporaryDirectory(prefix="braidwater-bench-") as folder:
            if self._make_data is not None:
                self._make_data(Path(folder), given.rows)
            begun, busy, own = time.perf_counter(), busy_seconds(), cpu_seconds()
            command = f"--rows {given.rows} --rounds {given.rounds}"
            command += "".join(f' --only "{name}"' for name in given.only or [])
            figures: list[Figures] = []
            for figures in self._rounds(given.only or list(self._contenders), given.rounds, Path(folder)):
                others = busy_seconds() - busy - (cpu_seconds() - own)
                others /= (time.perf_counter() - begun) * (os.cpu_count() or 1)
                if figures:  # a run that is cut off leaves what it measured
                    self._keep(given.results, given.rows, given.rounds, figures, max(others, 0.0), command)
        if not figures:
            raise SystemExit(f"{self.title}: no contender answered.")
        report(self.title, given.rows, figures)
        for name, reason in self._skipped.items():
            print(f"{name}: left out, {reason}")

    def _measure(self, name: str, data: Path) -> None:
        """In the contender's own process: one call that is not counted, then one that is."""
        run, _ = self._contenders[name]
        cache = tempfile.mkdtemp(dir=data)
        os.environ["BRAIDWATER_CACHE"] = cache
        warm = data / "warm"
        try:
            answer = run(warm if warm.is_dir() else data)
            if callable(answer):
                answer()
            cpu, wall = cpu_seconds(), time.perf_counter()
            found = run(data)
            wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
            peak = _peak()
            found = found() if callable(found) else found
        except ModuleNotFoundError as error:
            print("SKIPPED " + json.dumps(f"{error.name} is not installed"))
            return
        finally:
            shutil.rmtree(cache, ignore_errors=True)
        if not isinstance(found, Found):
            found = Found(str(found))
        measured = {
            "wall": wall if found.wall is None else found.wall,
            "cpu": cpu if found.cpu is None else found.cpu,
            "peak": peak,
            "found": found.text,
            "values": found.values,
        }
        print("FIGURES " + json.dumps(measured))

    def _rounds(self, names: list[str], rounds: int, data: Path) -> Iterator[list[Figures]]:
        """The figures so far, after each answer."""
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for number in range(rounds):
            for name in names:
                if name in self._skipped or (number and name in self._once):
                    continue
                command = [sys.executable, str(self._file), "--in-process", name, "--data", str(data)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                lines = done.stdout.splitlines()
                answers = [line[8:] for line in lines if line.startswith("FIGURES ")]
                skips = [line[8:] for line in lines if line.startswith("SKIPPED ")]
                if answers:
                    runs[name].append(json.loads(answers[0]))
                    print(f"round {number + 1} {name}: {runs[name][-1]}", file=sys.stderr)
                else:
                    self._skipped[name] = json.loads(skips[0]) if skips else _last_words(done)
                    print(f"{name}: {self._skipped[name]}", file=sys.stderr)
                yield [self._figures(one, found) for one, found in runs.items() if found]

    def _figures(self, name: str, runs: list[dict[str, Any]]) -> Figures:
        def median(key: str) -> float:
            return float(statistics.median(run[key] for run in runs))

        peak = max(int(run["peak"]) for run in runs)
        values = {key: statistics.median(run["values"][key] for run in runs) for key in runs[0]["values"]}
        ours = self._contenders[name][1]
        return Figures(name, median("wall"), median("cpu"), peak, runs[-1]["found"], ours, values, runs)

    def _keep(self, folder: Path, rows: int, rounds: int, figures: list[Figures], others: float, command: str) -> None:
        """The figures for `docs/benchmarks.md`, with what a reader needs to see them again.

        `others` is the share of the machine that other processes took meanwhile: above a few percent, trust CPU seconds only.
        """
        folder.mkdir(parents=True, exist_ok=True)
        script = self._file.relative_to(RESULTS.parent.parent)
        document = {
            "title": self.title,
            "rows": rows,
            "rounds": rounds,
            "command": f"python {script} {command}",
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "taken_by_others": round(others, 3),
            "versions": versions(),
            "figures": [asdict(one) for one in figures],
            "skipped": self._skipped,
        }
        (folder / f"{self._file.stem}.json").write_text(json.dumps(document, indent=1) + "\n")


def report(title: str, rows: int, figures: list[Figures]) -> None:
    """Print the table."""
    ours = next((f for f in figures if f.ours), figures[0])
    print(f"\n{title}, {rows:,} rows\n")
    print(f"{'':44}{'wall s':>9}{'x ours':>8}{'CPU s':>9}{'x ours':>8}{'peak MB':>9}  found")
    for f in figures:
        ratios = f"{f.wall:9.3f}{f.wall / ours.wall:8.2f}{f.cpu:9.3f}{f.cpu / max(ours.cpu, 1e-9):8.2f}"
        print(f"{f.name:44}{ratios}{f.peak / 1e6:9.0f}  {f.found}")


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    words = done.stderr.strip().splitlines()
    return f"failed: {words[-1][:300] if words else f'exit status {done.returncode}'}"


def cpu_seconds() -> float:
    """CPU seconds of this process, of its children that have ended, and of those that live (a JVM), all threads."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    ticks = 0
    for process in _descendants():
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(int(fields[place]) for place in (11, 12, 13, 14))  # user, system, and those of its ended children
    ended = children.ru_utime + children.ru_stime
    return own.ru_utime + own.ru_stime + ended + ticks / os.sysconf("SC_CLK_TCK")


def _peak() -> int:
    """Highest resident bytes of this process and of its living children.

    From the kernel's mark, as `ru_maxrss` of a new process begins at what its parent had.
    """
    total = 0
    for process in (Path("/proc/self"), *_descendants()):
        try:
            lines = (process / "status").read_text().splitlines()
        except OSError:
            continue
        total += next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
    return total or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _descendants() -> list[Path]:
    """The processes below this one, under /proc."""
    parents: dict[int, int] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, wave = [], [os.getpid()]
    while wave:
        wave = [child for child, parent in parents.items() if parent in wave]
        found += wave
    return [Path(f"/proc/{number}") for number in found]
