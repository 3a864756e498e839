"""A search's own cost: trials that train nothing, so that what is left is asking, telling, storing and scheduling.

``rows`` is the number of trials. Ours run in one worker process, Optuna's ``optimize`` in this process (``n_jobs`` are threads).
The last two contenders report a metric in ten steps, and most of their trials are pruned by successive halving.
"""

from __future__ import annotations

import time
from math import log10
from pathlib import Path
from typing import Any

from harness import Benchmark, Found, cpu_seconds

bench = Benchmark("a search over 200 trials that train nothing", rows=200)


class Nothing:
    """A model whose loss is known before it is trained."""

    def __init__(self, x: float = 0.0, rate: float = 1.0, steps: int = 0) -> None:
        self.x, self.rate, self.steps = x, rate, steps

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {"x": self.x, "rate": self.rate, "steps": self.steps}

    def set_params(self, **changes: Any) -> Nothing:
        vars(self).update(changes)
        return self

    def loss(self) -> float:
        return (self.x - 0.3) ** 2 + (log10(self.rate) + 2) ** 2

    def fit(self, rows: Any) -> Nothing:
        from braidwater.events import Metric, emit

        for step in range(1, self.steps + 1):
            emit(Metric(name="loss", value=self.loss() + 1 / step, step=step))
        return self

    def evaluate(self, rows: Any) -> dict[str, float]:
        return {"loss": self.loss()}


def ours(trials: int, steps: int = 0, **settings: Any) -> Found:
    """Driver-side cost from the first trial's end to the last one's: the worker's start is not the search's."""
    import pyarrow as pa

    from braidwater.events import Event, TrialEnded, listen
    from braidwater.model_selection import Float, LogFloat, search

    times: list[tuple[float, float]] = []

    def note(event: Event) -> None:
        if isinstance(event, TrialEnded):
            times.append((time.perf_counter(), time.process_time()))

    with listen(note):
        study = search(
            Nothing(steps=steps), {"x": Float(-1, 1), "rate": LogFloat(1e-4, 1.0)}, pa.table({"x": [0.0]}), metric="loss",
            validation=None, budget=trials, workers=1, **settings,
        )  # fmt: skip
    wall, cpu = (times[-1][k] - times[0][k] for k in (0, 1))
    states = [trial.state for trial in study.trials]
    values = {"ms of driver CPU a trial": cpu / (trials - 1) * 1e3, "ms of wall a trial": wall / (trials - 1) * 1e3}
    return Found(f"best {study.best_value:.4f}, {states.count('pruned')} pruned", values, wall=wall, cpu=cpu)


def optunas(trials: int, folder: Path | None, steps: int = 0, jobs: int = 1, sampler: str = "TPESampler") -> Found:
    """The same objective in Optuna's own loop."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    place = None if folder is None else f"sqlite:///{folder / f'optuna-{time.time_ns()}.sqlite'}"
    pruner = optuna.pruners.SuccessiveHalvingPruner() if steps else optuna.pruners.NopPruner()
    study = optuna.create_study(storage=place, sampler=getattr(optuna.samplers, sampler)(seed=0), pruner=pruner)

    def objective(trial: Any) -> float:
        model = Nothing(trial.suggest_float("x", -1, 1), trial.suggest_float("rate", 1e-4, 1.0, log=True))
        for step in range(1, steps + 1):
            trial.report(model.loss() + 1 / step, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return model.loss()

    wall, cpu = time.perf_counter(), cpu_seconds()
    study.optimize(objective, trials, n_jobs=jobs)
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    pruned = sum(trial.state.name == "PRUNED" for trial in study.trials)
    values = {"ms of driver CPU a trial": cpu / trials * 1e3, "ms of wall a trial": wall / trials * 1e3}
    return Found(f"best {study.best_value:.4f}, {pruned} pruned", values, wall=wall, cpu=cpu)


def pruner() -> Any:
    from optuna.pruners import SuccessiveHalvingPruner

    return SuccessiveHalvingPruner()


def place(folder: Path) -> Path:
    return folder / f"ours-{time.time_ns()}.sqlite"


@bench.contender("braidwater, TPE, in memory", ours=True)
def ours_in_memory(folder: Path) -> Found:
    return ours(bench.rows)


@bench.contender("braidwater, TPE, SQLite", ours=True)
def ours_stored(folder: Path) -> Found:
    return ours(bench.rows, storage=place(folder))


@bench.contender("braidwater, random, SQLite", ours=True)
def ours_random(folder: Path) -> Found:
    return ours(bench.rows, sampler="random", storage=place(folder))


@bench.contender("braidwater, TPE, pruned, SQLite", ours=True)
def ours_pruned(folder: Path) -> Found:
    return ours(bench.rows, steps=10, scheduler=pruner(), storage=place(folder))


@bench.contender("optuna, TPE, in memory")
def optuna_in_memory(folder: Path) -> Found:
    return optunas(bench.rows, None)


@bench.contender("optuna, TPE, SQLite, n_jobs=2")
def optuna_stored(folder: Path) -> Found:
    return optunas(bench.rows, folder, jobs=2)


@bench.contender("optuna, random, SQLite, n_jobs=2")
def optuna_random(folder: Path) -> Found:
    return optunas(bench.rows, folder, jobs=2, sampler="RandomSampler")


@bench.contender("optuna, TPE, pruned, SQLite, n_jobs=2")
def optuna_pruned(folder: Path) -> Found:
    return optunas(bench.rows, folder, steps=10, jobs=2)


@bench.contender("ray tune, random", once=True)
def ray_tune(folder: Path) -> Found:
    from ray import tune

    def objective(parameters: dict[str, float]) -> dict[str, float]:
        return {"loss": Nothing(**parameters).loss()}

    space = {"x": tune.uniform(-1, 1), "rate": tune.loguniform(1e-4, 1.0)}
    settings = tune.TuneConfig(metric="loss", mode="min", num_samples=bench.rows, reuse_actors=True)
    best = tune.Tuner(objective, param_space=space, tune_config=settings).fit().get_best_result()
    return Found(f"best {best.metrics['loss']:.4f}")


if __name__ == "__main__":
    bench.main()
