"""What the benchmarks are meant to reach, as numbers that can be read off their figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Figures = dict[str, dict[str, Any]]  # of one benchmark, by the contender's name


@dataclass(frozen=True)
class Goal:
    """`measure` reads a number off a benchmark's figures; it is to be at least (or at most) `wanted`.

    `peer` is the short name of who is outrun, where the number says how many times as long the peer takes; `in_cpu` says the same
    of CPU seconds, which others on the machine disturb less.
    """

    benchmark: str
    text: str
    wanted: float
    at_least: bool
    measure: Callable[[Figures], float]
    unit: str = "×"
    peer: str = ""
    in_cpu: Callable[[Figures], float] | None = None

    def reached(self, measured: float) -> bool:
        return measured >= self.wanted if self.at_least else measured <= self.wanted

    def shown(self, number: float) -> str:
        """A number in the goal's unit."""
        if self.unit == "%":
            return f"{number:.0%}"
        if self.unit == "MB":
            return f"{number / 1e6:.0f} MB"
        return f"{number:.2f} {self.unit}" if abs(number) < 100 else f"{number:.0f} {self.unit}"


def times(ours: str, *peers: str, key: str = "wall") -> Callable[[Figures], float]:
    """Seconds of the quickest of `peers` over ours."""
    return lambda figures: min(figures[peer][key] for peer in peers) / figures[ours][key]


def value(name: str, key: str) -> Callable[[Figures], float]:
    """A number that a contender measured itself."""
    return lambda figures: float(figures[name]["values"][key])


def quantity(name: str, key: str) -> Callable[[Figures], float]:
    """`wall`, `cpu` or `peak` of a contender."""
    return lambda figures: float(figures[name][key])


def faster(benchmark: str, ours: str, wanted: float, text: str, peer: str, *peers: str) -> Goal:
    in_cpu = times(ours, *peers, key="cpu")
    return Goal(benchmark, text, wanted, True, times(ours, *peers), peer=peer, in_cpu=in_cpu)


def slower(benchmark: str, ours: str, wanted: float, text: str, other: str) -> Goal:
    """Ours takes at most `wanted` times as long as the other."""
    in_cpu = times(other, ours, key="cpu")
    return Goal(benchmark, text, wanted, False, times(other, ours), in_cpu=in_cpu)


TURNS = "both in the same processes, in turns"
LOGISTIC, OURS = "logistic_regression", "braidwater"
MEMORY, FILE = "in memory, 2 threads", "cache file in the page cache, 2 threads"
AVERAGED = "SGDClassifier.partial_fit, average=True"

GOALS = (
    faster(LOGISTIC, OURS, 2.5, "logistic regression against scikit-learn's lbfgs, float32 in memory", "scikit-learn",
           "scikit-learn lbfgs, float32 in memory"),
    faster(LOGISTIC, OURS, 3, "… against a gradient in DuckDB SQL and scipy's L-BFGS", "DuckDB SQL",
           "DuckDB SQL gradient + scipy L-BFGS"),
    faster(LOGISTIC, OURS, 5, "… against dask-ml, the quicker of two solvers", "dask-ml",
           "dask-ml lbfgs, persisted", "dask-ml newton, persisted"),
    faster(LOGISTIC, OURS, 5, "… against Spark MLlib on two cores", "Spark MLlib", "Spark MLlib, local[2]"),
    Goal("memory", "resident memory of a logistic regression, whatever the rows", 0.5e9, False,
         quantity("all rows", "peak"), "MB"),
    Goal("memory", "… with ten times the rows, as a share of that with one", 1.05, False,
         lambda f: f["all rows"]["peak"] / f["a tenth of the rows"]["peak"]),
    slower("path_of_penalties", "path of 32, in memory", 5, "a path of 32 penalties against one fit, in memory",
           "one fit, in memory"),
    slower("path_of_penalties", "path of 32, disk", 1.3, "… where the disk is the limit", "one fit, disk"),
    faster("linear_regression", "braidwater, with standard errors", 1.5, "linear regression against polars push-down",
           "polars", "polars push-down, streaming"),
    faster("k_means", OURS, 1.2, "k-means against scikit-learn's Lloyd, in memory", "scikit-learn",
           "scikit-learn Lloyd, float32 in memory"),
    faster("pca", OURS, 10, "PCA against IncrementalPCA, and exact", "IncrementalPCA", "scikit-learn IncrementalPCA"),
    faster("sgd", "braidwater, solver='sgd'", 2.5, "a pass of SGD against SGDClassifier.partial_fit", "SGDClassifier",
           AVERAGED),
    Goal("sgd", "… its excess loss as a share of SGDClassifier's, whose rate is not tuned", 0.2, False,
         lambda f: f["braidwater, solver='sgd'"]["values"]["excess_loss"] / f[AVERAGED]["values"]["excess_loss"]),
    Goal("warm_pass", "a warm pass, blocks in memory", 10, False, value(MEMORY, "cpu_ns_row"), "CPU-ns a row"),
    Goal("warm_pass", "… from a file that the system keeps", 10, False, value(FILE, "cpu_ns_row"), "CPU-ns a row"),
    Goal("warm_pass", "… without compiled code (asked of a form in torch, which there is none of)", 12, False,
         value("in memory, 2 threads, numpy form", "cpu_ns_row"), "CPU-ns a row"),
    Goal("warm_pass", "a warm pass's share of the memory bandwidth, 2 threads", 0.6, True, value(MEMORY, "share"), "%"),
    Goal("warm_pass", "… from a file that the system keeps", 0.6, True, value(FILE, "share"), "%"),
    Goal("warm_pass", "a cold pass's share of what O_DIRECT reads", 0.95, True,
         value("cold cache file, 2 threads", "share"), "%"),
    Goal("trainer", "the trainer against a loop by hand, steps of a millisecond, turn by turn in one process", 1.03, False,
         value("braidwater, Single", "wall_ratio"), in_cpu=value("braidwater, Single", "cpu_ratio")),
    Goal("all_reduce", "AllReduce against DistributedDataParallel by hand, turn by turn in the same processes", 1.03, False,
         value(TURNS, "wall_ratio"), in_cpu=value(TURNS, "cpu_ratio")),
    slower("all_reduce", "braidwater, AllReduce, with start", 1.03, "… the start of the processes included",
           "DistributedDataParallel by hand, with start"),
    faster("mini_batches", "braidwater, block cache on disk", 10, "mini-batches against a DataLoader, a sample at a time",
           "DataLoader", "DataLoader, a sample at a time", "DataLoader, 2 workers"),
    Goal("feeding", "rows of mini-batches in memory, a second, against a random gather from a tensor, one core", 1, True,
         times("rows: braidwater, blocks in memory", "rows: gather from a tensor")),
    Goal("feeding", "… images of 32 x 32 x 3 bytes", 1, True,
         times("images: braidwater, blocks in memory", "images: gather from a tensor")),
    Goal("feeding", "a trainer's wait for rows, steps of a millisecond", 0.02, False,
         value("trainer: wait for rows, blocks in memory", "waiting"), "%"),
    Goal("feeding", "… from a block file", 0.02, False, value("trainer: wait for rows, block file", "waiting"), "%"),
    faster("fused", "8 penalties, one scan", 6, "8 logistic regressions in one scan of a file, in CPU seconds", "a scan each",
           "8 penalties, a scan each"),
    slower("fused", "32 penalties, one scan, in memory", 5, "32 logistic regressions in one scan against one, in memory",
           "1 penalty, in memory"),
    faster("fused", "16 small nets, stacked", 4, "16 small nets stacked", "one after another",
           "16 small nets, one after another"),
    Goal("hopper", "the hopper's workers are busy", 0.95, True, value("hopper", "busy"), "%"),
    Goal("hopper", "… its makespan over the estimate", 1.1, False,
         lambda f: f["hopper"]["values"]["makespan s"] / f["hopper"]["values"]["estimate s"]),
    Goal("startup", "CPU of `braidwater --help`", 0.3, False, quantity("braidwater --help", "cpu"), "s"),
    Goal("startup", "CPU of `import braidwater`", 0.3, False, quantity("import braidwater", "cpu"), "s"),
)  # fmt: skip
