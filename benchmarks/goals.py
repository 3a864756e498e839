"""What the benchmarks are meant to reach, as numbers that can be read off their figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import geometric_mean
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


def each_case(ours: str, peer: str, suffix: str, join: Callable[[list[float]], float]) -> Callable[[Figures], float]:
    """`join` of how many times as long the peer takes in each case that both measured themselves; `suffix` ends their names."""

    def measure(figures: Figures) -> float:
        mine, theirs = figures[ours]["values"], figures[peer]["values"]
        cases = [name for name in mine if name.endswith(" cpu") == bool(suffix) and name in theirs]
        return join([theirs[name] / mine[name] for name in cases])

    return measure


def faster(benchmark: str, ours: str, wanted: float, text: str, peer: str, *peers: str) -> Goal:
    in_cpu = times(ours, *peers, key="cpu")
    return Goal(benchmark, text, wanted, True, times(ours, *peers), peer=peer, in_cpu=in_cpu)


def slower(benchmark: str, ours: str, wanted: float, text: str, other: str) -> Goal:
    """Ours takes at most `wanted` times as long as the other."""
    in_cpu = times(other, ours, key="cpu")
    return Goal(benchmark, text, wanted, False, times(other, ours), in_cpu=in_cpu)


TURNS = "both in the same processes, in turns"
LOGISTIC, OURS = "logistic_regression", "braidwater"
WHOLE, WARM = ("braidwater, whole processes", "SystemDS, whole processes"), ("braidwater, warm", "SystemDS, warm")
LARGER, HELD = "a table of four times the memory", "all in memory"
MEMORY, FILE = "in memory, 2 threads", "cache file in the page cache, 2 threads"
AVERAGED = "SGDClassifier.partial_fit, average=True"
ITERATE, ALONE = "braidwater, iterate", "numpy, one process"
KILLED = ("recovery: a member of a gang is killed", "recovery: a worker of an iteration is killed")


def losses_apart(figures: Figures) -> float:
    """The largest difference of an epoch's loss between places."""
    found = [one["values"].values() for name, one in figures.items() if name.startswith("losses: ")]
    if len(found) < 2:
        raise KeyError("losses")
    return max(max(losses) - min(losses) for losses in zip(*found, strict=True))


def recovery(name: str) -> Callable[[Figures], float]:
    """Seconds that a lost worker cost; infinity where results were others."""

    def measure(figures: Figures) -> float:
        found = figures[name]["values"]
        return float(found["seconds"]) if found["same"] else float("inf")

    return measure


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
    Goal("fused", "8 logistic regressions in one scan of a file, CPU seconds", 6, True,
         times("8 penalties, one scan", "8 penalties, a scan each", key="cpu")),
    slower("fused", "32 penalties, one scan, in memory", 5, "32 logistic regressions in one scan against one, in memory",
           "1 penalty, in memory"),
    faster("fused", "16 small nets, stacked", 4, "16 small nets stacked", "one after another",
           "16 small nets, one after another"),
    slower("groups", "linear: 10,000 groups", 2, "10,000 linear models, one a group, against one of all rows, Parquet included",
           "linear: one fit of all rows"),
    slower("groups", "logistic: 10,000 groups", 2, "… logistic models", "logistic: one fit of all rows"),
    slower("cross_validation", "linear: five folds", 1.5, "a linear model in five folds against one fit, Parquet included",
           "linear: one fit"),
    Goal("search", "CPU of a search itself, a trial that is pruned", 5, False,
         value("braidwater, TPE, pruned, SQLite", "ms of driver CPU a trial"), "ms"),
    Goal("hopper", "the hopper's workers are busy", 0.95, True, value("hopper", "busy"), "%"),
    Goal("hopper", "… its makespan over the estimate", 1.1, False,
         lambda f: f["hopper"]["values"]["makespan s"] / f["hopper"]["values"]["estimate s"]),
    Goal("dml_systemds", "14 scripts from start to end against SystemDS, geometric mean", 4, True,
         each_case(*WHOLE, "", geometric_mean), peer="SystemDS"),
    Goal("dml_systemds", "… the worst of them", 1, True, each_case(*WHOLE, "", min)),
    Goal("dml_systemds", "… again and again in one process, CPU seconds, geometric mean", 1.5, True,
         each_case(*WARM, " cpu", geometric_mean)),
    Goal("dml_systemds", "… the worst of them", 1, True, each_case(*WARM, " cpu", min)),
    *(slower("dml_memory", f"{case}, {LARGER}", 3, f"{case} in DML over a table of four times the memory, against in memory",
             f"{case}, {HELD}") for case in ("LinearRegCG", "l2-svm", "Kmeans")),
    Goal("dml_memory", "… memory that the process takes, as a share of the option, the most of the three", 1, False,
         lambda f: max(one["values"]["resident"] for name, one in f.items() if name.endswith(LARGER))),
    Goal("spark", "a gradient inside `iterate` on Spark against numpy in one process, CPU seconds", 1.5, False,
         lambda f: f[ITERATE]["values"]["pass cpu"] / f[ALONE]["values"]["pass cpu"]),
    Goal("spark", "… wall seconds, two workers", 1, False,
         lambda f: f[ITERATE]["values"]["pass wall"] / f[ALONE]["values"]["pass wall"]),
    Goal("spark", "ten gradients on Spark, set-up included, against MLlib on cached rows, CPU seconds", 4, True,
         times(ITERATE, "MLlib, cached", key="cpu")),
    faster("spark", ITERATE, 4, "… against `treeAggregate` over cached numpy blocks", "treeAggregate",
           "treeAggregate over cached numpy blocks"),
    Goal("spark_gangs", "a gang of two on Spark is up, Python workers warm", 1.6, False,
         quantity("start: braidwater", "wall"), "s"),
    faster("spark_gangs", "start: braidwater", 4, "… against TorchDistributor", "TorchDistributor",
           "start: TorchDistributor"),
    Goal("spark_gangs", "a gang's step on Spark against the same gang without, in turns", 1.05, False,
         value("steps: on Spark and without, in turns", "wall_ratio")),
    Goal("spark_gangs", "losses on threads of a JVM, separate executors and Connect: the largest difference", 0, False,
         losses_apart, ""),
    *(Goal("spark_gangs", f"{name}: seconds more, results the same", 10, False, recovery(name), "s") for name in KILLED),
    slower("spark_rows", "blocks: braidwater, map_blocks", 1.1, "`map_blocks` on Spark against mapInArrow by hand",
           "blocks: mapInArrow by hand"),
    faster("spark_rows", "blocks: braidwater, map_blocks", 20, "… against a row UDF", "row UDF, pickled",
           "blocks: a row UDF, pickled"),
    faster("spark_rows", "blocks: braidwater, map_blocks", 20, "… against rows as objects", "rdd.map",
           "blocks: rdd.map, rows out"),
    faster("spark_rows", "groups: braidwater, fit_groups", 3, "1,000 groups of least squares against groupBy.applyInArrow",
           "applyInArrow", "groups: groupBy.applyInArrow"),
    Goal("startup", "CPU of `braidwater --help`", 0.3, False, quantity("braidwater --help", "cpu"), "s"),
    Goal("startup", "CPU of `import braidwater`", 0.3, False, quantity("import braidwater", "cpu"), "s"),
)  # fmt: skip
