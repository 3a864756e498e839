"""Write docs/benchmarks.md and its picture from the figures in benchmarks/results.

python benchmarks/document.py
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from goals import GOALS, Figures, Goal
from harness import RESULTS
from ratios_chart import ratios_chart

DOCS = RESULTS.parent.parent / "docs"
Document = dict[str, Any]
ORDER = ("logistic_regression", "path_of_penalties", "linear_regression", "k_means", "pca", "sgd", "warm_pass", "memory",
         "trainer", "all_reduce", "parallel_sync", "parallel_model", "strategies", "feeding", "mini_batches", "fused",
         "hopper", "spark", "spark_gangs", "spark_rows", "dml", "dml_memory", "dml_systemds", "startup")  # fmt: skip

HEAD = """# How fast

<!-- written by benchmarks/document.py from benchmarks/results/*.json; change those -->

Peers side by side in one run: every contender is a process of its own, they take turns, and what is compared is a ratio.
A figure is the median of the rounds. CPU seconds are those of all threads and children. The first call of each contender, on
fewer rows, is not counted: imports, compiled kernels (0.7 s in a process that has not used any) and a JVM are ready when the
clock starts. Reading Parquet is counted on
both sides wherever the title says so. Where other processes took much of the machine, which each section tells, CPU seconds
are to be trusted more than wall seconds. `python benchmarks/run.py` makes all of it anew, `--quick` a small
form of it.

![how many times as long the peers take](benchmarks/ratios.svg)
"""

NOTES = {
    "sgd": "`SGDClassifier` learns at a rate that has to be found: with the best of nine settings its excess loss is in the last "
    "line. Ours has no rate to set.",
    "warm_pass": "The share is of a plain sum over memory by as many threads, made in turns with the passes in the same process. "
    "It goes down where the machine's memory is quick: a pass is then limited by arithmetic.",
    "path_of_penalties": "The disk is the limit when the cache does not fit into free memory: here the cache is read with "
    "O_DIRECT as if there were none, and was written before. One fit is that of the smallest penalty.",
    "memory": "Of the whole process, interpreter, numpy, DuckDB, pyarrow and numba among it.",
    "strategies": "The plan is asked before each training, and trains nothing. Wall seconds are those of the whole training: "
    "reading, starting processes, epochs and their validation; those to an accuracy leave out the epochs after it. Of the "
    "ensemble only the last epoch is validated. Sent is what worker 0 handed to others. Two workers compute with one thread "
    "each, `Single` with two.",
    "feeding": "Of the mini-batches, seconds are those of a million rows or images, after an epoch that is not counted, in a "
    "process that is kept to one core; a CPU second counts all its threads. Trainers wait between a step and the next; a step of "
    "the net here takes about a millisecond.",
    "fused": "Models of one scan differ in their penalty, nets in their learning rate; weights and losses are those of each by "
    "itself.",
    "hopper": "Data stay with their worker and nets travel; `busy` is the share of the makespan in which workers train. All "
    "contenders train the same nets with the same sizes of step; the order of rows differs.",
    "groups": "Standard errors are among what is computed, for every group. scikit-learn in a loop over pandas' groups has none, "
    "and takes part in the first round only.",
    "cross_validation": "The folds are drawn at random, of equal size within one row. The peers hold the rows in memory and "
    "take part in the first round only.",
    "search": "Trials train nothing. Ours run in a process of their own and the figures are the driver's, between the end of "
    "the first trial and that of the last; Optuna's run in its own process.",
    "dml": "Seconds are the sum over the cases, data in memory; a script is compiled within. NumPy by hand with one BLAS thread "
    "and with two.",
    "dml_memory": "The table is read from its block file, which the system keeps in free memory. `resident` is what the process "
    "grew by, `pool` what the script's matrices took, both as a share of the memory option.",
    "dml_systemds": "Seconds are the sums over the cases. Both read the same script and the same text files. Warm is the fewest "
    "wall seconds, and the mean of the CPU seconds, of five turns of a script's core in one process, on other data each turn. "
    "All contenders have all cores.",
    "spark": "All take ten steps of one length, MLlib ten iterations of L-BFGS. What each keeps (blocks on disk, a cached frame, "
    "arrays) is there before the clock starts. A pass is one of the nine after the first; the rest is set-up.",
    "spark_gangs": "elephas' way averages once, from numpy blocks in place of rows. Recovery is what a training took longer with "
    "a kill than without; TorchDistributor's results are those of one call.",
    "spark_rows": "`rdd.map` gets rows as objects, which is how TensorFlowOnSpark, elephas and Orca are fed.",
    "logistic_regression": "dask-ml holds the rows in memory, which is its quickest way. The same loss is reached by all.",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=DOCS)
    given = parser.parse_args()
    documents = {file.stem: json.loads(file.read_text()) for file in sorted(given.results.glob("*.json"))}
    measured = [(goal, number) for goal in GOALS if (number := measure(goal, documents)) is not None]
    names = [*(name for name in ORDER if name in documents), *(name for name in documents if name not in ORDER)]
    parts = [HEAD, goals_table(measured, documents), *(section(name, documents[name]) for name in names)]
    given.docs.mkdir(parents=True, exist_ok=True)
    (given.docs / "benchmarks").mkdir(exist_ok=True)
    (given.docs / "benchmarks.md").write_text("\n".join(parts))
    (given.docs / "benchmarks" / "ratios.svg").write_text(ratios_chart(measured))


def measure(goal: Goal, documents: dict[str, Document]) -> float | None:
    """The goal's number, None where its benchmark was not run or one of the contenders was left out."""
    if goal.benchmark not in documents:
        return None
    try:
        return goal.measure(figures_of(documents[goal.benchmark]))
    except KeyError:
        return None


def figures_of(document: Document) -> Figures:
    return {one["name"]: one for one in document["figures"]}


def goals_table(measured: list[tuple[Goal, float]], documents: dict[str, Document]) -> str:
    lines = ["## Goals", "", "| | wanted | measured | | in CPU |", "| --- | ---: | ---: | --- | ---: |"]
    for goal, number in measured:
        wanted = f"{'at least' if goal.at_least else 'at most'} {goal.shown(goal.wanted)}"
        verdict = "reached" if goal.reached(number) else "**not reached**"
        cpu = "" if goal.in_cpu is None else goal.shown(goal.in_cpu(figures_of(documents[goal.benchmark])))
        lines.append(f"| {goal.text} | {wanted} | {goal.shown(number)} | {verdict} | {cpu} |")
    found = [goal for goal, _ in measured]
    missing = [goal.text for goal in GOALS if goal not in found]
    if missing:
        lines += ["", f"Not measured: {'; '.join(missing)}."]
    return "\n".join([*lines, ""])


def section(name: str, document: Document) -> str:
    """A benchmark's table, what it ran on, and the command."""
    ours = next((one for one in document["figures"] if one["ours"]), document["figures"][0])
    rows = f", {document['rows']:,} rows" if document["rows"] else ""
    lines = [f"## {document['title']}{rows}", "", "| | wall s | × | CPU s | × | peak MB | found |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    for one in document["figures"]:
        title = f"**{one['name']}**" if one["ours"] else one["name"]
        wall, cpu = one["wall"] / ours["wall"], one["cpu"] / max(ours["cpu"], 1e-9)
        lines.append(
            f"| {title} | {one['wall']:.3f} | {wall:.2f} | {one['cpu']:.3f} | {cpu:.2f} | {one['peak'] / 1e6:.0f} | "
            f"{one['found']} |"
        )
    lines += ["", *(f"Left out: {who}, {why}.\n" for who, why in document.get("skipped", {}).items())]
    lines += [NOTES[name], ""] if name in NOTES else []
    return "\n".join([*lines, _made_by(document), ""])


def _made_by(document: Document) -> str:
    machine = document["machine"]
    memory = f", {machine['memory_gb']} GB" if "memory_gb" in machine else ""
    made = f"{machine['processor']}, {machine['cores']} cores{memory}, Python {machine['python']}"
    if "date" in document:
        made = f"{document['date']}, {made}"
    if "taken_by_others" in document:
        made += f", other processes took {document['taken_by_others']:.0%} of the machine meanwhile"
    if "versions" in document:
        made += ", " + ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    return f"`{document['command']}`: {made}." if "command" in document else f"{made}."


if __name__ == "__main__":
    main()
