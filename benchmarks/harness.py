"""Peers side by side in one run: each contender in a process of its own, in turns, CPU beside wall time.

A benchmark is a file that makes a `Benchmark`, registers its contenders and calls `main()`::

    bench = Benchmark("logistic regression to the optimum", rows=2_000_000)

    @bench.contender("braidwater", ours=True)
    def braidwater(data: Path) -> str: ...

    if __name__ == "__main__":
        bench.main()

What is measured is the call of the function: imports are done before, in a warm-up round that is not counted (so compiled
kernels are in their cache). Each contender returns a text that says what it found, so that a fast wrong answer shows.
Figures are medians over the rounds; a ratio is the peer's median divided by ours.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Run = Callable[[Path], Any]
RESULTS = Path(__file__).parent / "results"


@dataclass
class Figures:
    """One contender's medians over the rounds: seconds, bytes at the highest, and what it found."""

    name: str
    wall: float
    cpu: float
    peak: int
    found: str
    ours: bool = False
    runs: list[dict[str, float]] = field(default_factory=list)


class Benchmark:
    """A question of speed, and those who answer it. `make_data(folder, rows)` writes what the contenders read."""

    def __init__(self, title: str, *, rows: int, make_data: Callable[[Path, int], None] | None = None) -> None:
        self.title = title
        self.rows = rows
        self._make_data = make_data
        self._contenders: dict[str, tuple[Run, bool]] = {}
        self._file = Path(sys.argv[0]).resolve()

    def contender(self, name: str, *, ours: bool = False) -> Callable[[Run], Run]:
        """Register a function that is called with the folder of the data. The first of `ours` is what peers are held against."""

        def register(run: Run) -> Run:
            self._contenders[name] = (run, ours)
            return run

        return register

    def main(self) -> None:
        """The command line of a benchmark."""
        parser = argparse.ArgumentParser(description=self.title)
        parser.add_argument("--rows", type=int, default=self.rows)
        parser.add_argument("--rounds", type=int, default=3)
        parser.add_argument("--only", action="append", help="contenders to run (by default all)")
        parser.add_argument("--in-process", help=argparse.SUPPRESS)
        parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
        given = parser.parse_args()
        if given.in_process:
            self._measure(given.in_process, given.data)
            return
        with tempfile.TemporaryDirectory(prefix="braidwater-bench-") as folder:
            if self._make_data is not None:
                self._make_data(Path(folder), given.rows)
            figures = self._rounds(given.only or list(self._contenders), given.rounds, Path(folder))
        report(self.title, given.rows, figures, self._file.stem)

    def _measure(self, name: str, data: Path) -> None:
        """In the contender's own process: one call that is not counted, then one that is."""
        run, _ = self._contenders[name]
        os.environ.setdefault("BRAIDWATER_CACHE", tempfile.mkdtemp(dir=data))
        warm = data / "warm"
        run(warm if warm.is_dir() else data)
        cpu, wall = _cpu(), time.perf_counter()
        found = run(data)
        wall, cpu = time.perf_counter() - wall, _cpu() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print("FIGURES " + json.dumps({"wall": wall, "cpu": cpu, "peak": peak, "found": str(found)}))

    def _rounds(self, names: list[str], rounds: int, data: Path) -> list[Figures]:
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for number in range(rounds):
            for name in names:
                command = [sys.executable, str(self._file), "--in-process", name, "--data", str(data)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                lines = [line for line in done.stdout.splitlines() if line.startswith("FIGURES ")]
                if not lines:
                    print(f"{name} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
                    continue
                runs[name].append(json.loads(lines[0][8:]))
                print(f"round {number + 1} {name}: {runs[name][-1]}", file=sys.stderr)
        return [self._figures(name, found) for name, found in runs.items() if found]

    def _figures(self, name: str, runs: list[dict[str, Any]]) -> Figures:
        def median(key: str) -> float:
            return statistics.median(run[key] for run in runs)

        peak = max(int(run["peak"]) for run in runs)
        return Figures(name, median("wall"), median("cpu"), peak, runs[-1]["found"], self._contenders[name][1], runs)


def report(title: str, rows: int, figures: list[Figures], stem: str) -> None:
    """Print the table, and keep the figures for `docs/benchmarks.md`."""
    ours = next((f for f in figures if f.ours), figures[0])
    print(f"\n{title}, {rows:,} rows\n")
    print(f"{'':32}{'wall s':>9}{'x ours':>8}{'CPU s':>9}{'x ours':>8}{'peak MB':>9}  found")
    for f in figures:
        ratios = f"{f.wall:9.3f}{f.wall / ours.wall:8.2f}{f.cpu:9.3f}{f.cpu / max(ours.cpu, 1e-9):8.2f}"
        print(f"{f.name:32}{ratios}{f.peak / 1e6:9.0f}  {f.found}")
    RESULTS.mkdir(exist_ok=True)
    machine = {"processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version()}
    document = {"title": title, "rows": rows, "machine": machine, "figures": [asdict(f) for f in figures]}
    (RESULTS / f"{stem}.json").write_text(json.dumps(document, indent=1) + "\n")


def _cpu() -> float:
    """CPU seconds of this process and of its children that have ended, all threads."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
