"""The run of a hopper over models that are given: who begins when, who has earned more epochs, what came of each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from braidwater.engines import Engine, Outcome, Task
from braidwater.errors import BraidwaterError, WorkerError
from braidwater.events import TrialEnded, TrialStarted, emit
from braidwater.model_selection.base import Continue, Direction, Scheduler, Trial
from braidwater.model_selection.hopper.ground import Ground
from braidwater.model_selection.hopper.loop import standing_of
from braidwater.model_selection.hopper.tasks import HopTasks, Log, Orders
from braidwater.model_selection.study import trial_folder
from braidwater.model_selection.trial_run import Setup, Stretch, run_stretch


class HopRun:
    """One call of `hop`. `trials` has what came of each model, by its number; `log` who went where."""

    def __init__(
        self,
        models: Sequence[Any],
        setup: Setup,
        ground: Ground,
        folder: Path,
        engine: Engine,
        scheduler: Scheduler,
        direction: Direction,
        retries: int,
        seed: int,
        orders: Sequence[Orders] | None,
    ) -> None:
        self._most = [int(model.epochs) for model in models]
        self._setup = setup
        self._folder = folder
        self._scheduler = scheduler
        self._sign = 1.0 if direction == "minimize" else -1.0
        self._retries = retries
        self._in_training: dict[str, Trial] = {}
        self.trials = {number: Trial(number, {"model": number}, "paused") for number in range(len(models))}
        self._waiting = [number for number in self.trials if not self._restored(self.trials[number])]
        # with a scheduler a few at a time, so that it decides knowing what came of them
        in_flight = 2 * ground.workers if scheduler.in_epochs else len(models)
        given = None if orders is None else dict(enumerate(orders))
        self._tasks = HopTasks.over(
            self._stretches(), setup, ground, engine, in_flight=in_flight, seed=seed, orders=given
        )

    @property
    def log(self) -> Log:
        return self._tasks.log

    def folder_of(self, number: int) -> Path:
        """Where the checkpoints of a model lie."""
        return trial_folder(self._folder, number) / "checkpoint"

    @property
    def best(self) -> int | None:
        """The number of the best model by the metric, of those that came farthest; None where none has a value."""
        valued = [t for t in self.trials.values() if t.value is not None and t.state != "failed"]
        complete = [t for t in valued if t.state == "complete"] or valued
        return min(complete, key=lambda t: (self._sign * float(t.value or 0.0), t.number)).number if complete else None

    def to_the_end(self) -> None:
        """Train until nothing is left to do. Where every model failed, the first one's error is raised."""
        errors: dict[int, BaseException] = {}
        try:
            for outcome in self._tasks:
                trial = self._in_training.pop(outcome.task.name)
                if outcome.error is not None:
                    errors[trial.number] = outcome.error
                self._take(trial, outcome)
        finally:
            self._tasks.close()
        if len(errors) == len(self.trials):
            first = errors[min(errors)]
            raise first if isinstance(first, BraidwaterError) else WorkerError(str(first))

    def _restored(self, trial: Trial) -> bool:
        """Note what an earlier call left of a model; whether it stands at a place where the scheduler decides, or is done."""
        try:
            standing, progress = standing_of(self.folder_of(trial.number))
        except BraidwaterError:
            return False  # the worker that takes it up will say what is wrong
        metric = str(self._setup.metrics[0])
        trial.results = {r["epoch"]: r[metric] for r in progress.history if metric in r}
        trial.epochs = standing.epoch
        if standing.epoch in trial.results:
            trial.values = (trial.results[standing.epoch],)
        most = self._most[trial.number]
        if standing.visited or not standing.epoch:
            return False
        if standing.stopped or standing.epoch >= most:
            trial.state = "complete"
            return True
        return self._scheduler.in_epochs and standing.epoch in self._rungs(trial.number)

    def _rungs(self, number: int) -> list[int]:
        """The epochs after which the scheduler compares, for this model."""
        rungs: list[int] = getattr(self._scheduler, "rungs")(self._most[number])  # noqa: B009
        first = self._scheduler.first_epochs(number, self._most[number]) or self._most[number]
        return [rung for rung in rungs if rung >= first]

    def _stretches(self) -> Iterator[Task | None]:
        """The next stretch of training, whenever a worker could begin one; None while all depends on those under way."""
        while True:
            trial = self._next()
            if trial is not None:
                yield self._task(trial)
            elif self._in_training:
                yield None
            else:
                return

    def _next(self) -> Trial | None:
        if self._scheduler.in_epochs:
            move = self._scheduler.move(self.trials, max(self._most), self._sign)
            if isinstance(move, Continue):
                trial = self.trials[move.number]
                trial.target = min(move.epochs, self._most[move.number])
                return trial
        if not self._waiting:
            return None
        trial = self.trials[self._waiting.pop(0)]
        most = self._most[trial.number]
        trial.target = most
        if self._scheduler.in_epochs:
            trial.target = next((rung for rung in self._rungs(trial.number) if rung > trial.epochs), most)
        return trial

    def _task(self, trial: Trial) -> Task:
        trial.state, trial.started = "running", trial.started or time.time()
        folder = str(trial_folder(self._folder, trial.number))
        most = self._most[trial.number]
        stretch = Stretch(trial.number, trial.parameters, folder, trial.target, most, resumable=True)
        name = f"model {trial.number}"
        self._in_training[name] = trial
        emit(TrialStarted(number=trial.number, parameters=trial.parameters, epochs=trial.target))
        return Task(name, run_stretch, (self._setup, stretch), retries=self._retries)

    def _take(self, trial: Trial, outcome: Outcome) -> None:
        """How a stretch of a model ended."""
        trial.seconds += outcome.seconds
        trial.attempts += outcome.attempts
        if outcome.error is not None:
            trial.state, trial.error = "failed", str(outcome.error)
        else:
            found = outcome.value
            trial.values, trial.metrics, trial.epochs = found.values, found.metrics, found.epochs
            trial.results[trial.epochs] = trial.values[0]
            stopped = trial.epochs < (trial.target or 0)
            trial.state = "complete" if stopped or trial.epochs >= self._most[trial.number] else "paused"
        first = None if trial.error is None else trial.error.splitlines()[0]
        emit(
            TrialEnded(
                number=trial.number, state=trial.state, value=trial.value, epochs=trial.epochs, seconds=trial.seconds,
                error=first,
            )
        )  # fmt: skip
