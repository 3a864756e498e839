"""The run of a search: who is trained next, what is heard of those in training, and what is kept of those that ended."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from braidwater.engines import Engine, Outcome, RunningTasks, Task
from braidwater.errors import TaskStopped
from braidwater.events import Event, Metric, SearchStarted, TaskEvent, TrialEnded, TrialStarted, emit, listen
from braidwater.model_selection.base import Continue, Spawn, State, Trial, cost
from braidwater.model_selection.checkpoints import take_over
from braidwater.model_selection.proposals import Proposal, Proposals
from braidwater.model_selection.study import model_folder, trial_folder
from braidwater.model_selection.trial_run import Packed, Setup, Stretch, run_stretch
from braidwater.model_selection.variants import variant

if TYPE_CHECKING:
    from braidwater.model_selection.hopper.ground import Ground
    from braidwater.model_selection.searching import _Plan
    from braidwater.model_selection.sharing import SharedPasses
    from braidwater.model_selection.storage import Storage


class SearchRun:
    """One call of `search`. Trials are asked for when a worker is free, so that none waits for another."""

    def __init__(
        self,
        plan: _Plan,
        setup: Setup,
        proposals: Proposals,
        trials: dict[int, Trial],
        folder: Path,
        storage: Storage | None,
        engine: Engine,
        keep: int,
        retries: int,
        timeout: float | None,
        seed: int,
        ground: Ground | None = None,
        shared: SharedPasses | None = None,
    ) -> None:
        self.trials = trials
        self.proposals_kept: dict[int, Proposal] = {number: proposals.proposal(number) for number in trials}
        self._plan = plan
        self._proposals = proposals
        self._setup = setup
        self._packed = Packed(setup)
        self._ground = ground
        self._shared = shared
        self._seed = seed
        self._streamed = _streamed_name(plan, setup)
        self._folder = folder
        self._storage = storage
        self._engine = engine
        self._keep = keep
        self._retries = retries
        self._timeout = timeout
        self._sign = 1.0 if plan.directions[0] == "minimize" else -1.0
        self._unfinished = [trial for trial in trials.values() if _was_interrupted(trial)]
        self._in_training: dict[str, Trial] = {}
        self._stopped: dict[int, State] = {}
        self._kept_models = {number for number in trials if model_folder(folder, number).is_dir()}
        self._deadline = float("inf")
        self._tasks: RunningTasks | None = None

    def to_the_end(self, name: str) -> None:
        """Search until the budget is spent, or there is nothing left to do."""
        budget = self._plan.budget
        metric, direction = self._plan.metrics[0], self._plan.directions[0]
        over = [number for number, trial in self.trials.items() if not _was_interrupted(trial)]
        valued = [number for number in over if self.trials[number].state == "complete"]
        best = min(valued, key=self._rank, default=None)
        emit(
            SearchStarted(
                name=name, metric=metric, direction=direction, trials=budget.trials, seconds=budget.seconds,
                ended=len(over), best_trial=best, best_value=None if best is None else self.trials[best].value,
            )
        )  # fmt: skip
        if budget.seconds is not None:
            self._deadline = time.monotonic() + budget.seconds
        self._tasks = self._begin()
        try:
            with listen(self._hear):
                for outcome in self._tasks:
                    self._take(outcome)
        finally:
            self._tasks.close()
        if self._storage is None:
            for number in self.trials:
                self._forget_checkpoint(number)

    def _begin(self) -> RunningTasks:
        """A trial on a worker at a time, or several in shared passes; or models that hop, twice as many as workers so that none
        waits for one."""
        if self._shared is not None:
            return self._shared.tasks(self._asked_for(), self._setup, self._engine)
        if self._ground is None:
            return self._engine.tasks(self._asked_for())
        from braidwater.model_selection.hopper.tasks import HopTasks

        in_flight = 2 * self._ground.workers
        return HopTasks.over(
            self._asked_for(), self._setup, self._ground, self._engine, in_flight=in_flight, seed=self._seed
        )

    def _asked_for(self) -> Iterator[Task | None]:
        """The next piece of training, whenever a worker is free; None while all depends on those that run."""
        while True:
            trial = None if self._is_spent() else self._next_trial()
            if trial is not None:
                yield self._task(trial)
            elif self._in_training:
                yield None
            else:
                return

    def _is_spent(self) -> bool:
        budget = self._plan.budget
        if time.monotonic() >= self._deadline:
            return True
        return budget.epochs is not None and sum(trial.epochs for trial in self.trials.values()) >= budget.epochs

    def _next_trial(self) -> Trial | None:
        """A trial that is ready to be trained: one that was interrupted, one that has earned it, or a new one."""
        if self._unfinished:
            return self._unfinished.pop(0)
        limit = self._plan.budget.trials
        begun = sum(1 for trial in self.trials.values() if trial.parent is None)
        may_begin = limit is None or begun < limit
        if self._plan.most is not None and not (may_begin and self._plan.scheduler.begins_all):
            move = self._plan.scheduler.move(self.trials, self._plan.most, self._sign)
            if isinstance(move, Continue):
                return self._granted(self.trials[move.number], move.epochs)
            if isinstance(move, Spawn):
                return self._spawned(move)
        return self._new() if may_begin else None

    def _new(self) -> Trial:
        number = len(self.trials)
        parameters = self._proposals.ask(number)
        target = self._plan.scheduler.first_epochs(number, self._plan.most)
        self.trials[number] = trial = Trial(number, parameters, started=time.time(), target=target)
        return trial

    def _granted(self, trial: Trial, epochs: int) -> Trial:
        trial.state, trial.target = "running", epochs
        return trial

    def _spawned(self, move: Spawn) -> Trial:
        """A new trial in the place of another one, from the checkpoint of a third."""
        most = self._plan.most or 0
        number = len(self.trials)
        source = trial_folder(self._folder, move.parent) / "checkpoint"
        begun = take_over(source, trial_folder(self._folder, number) / "checkpoint", move.parameters)
        replaced = self.trials[move.instead_of]
        if begun is None or begun >= most:
            shutil.rmtree(trial_folder(self._folder, number), ignore_errors=True)
            return self._granted(replaced, min(replaced.epochs + move.more, most))
        parameters = self._proposals.spawn(move.parent, move.parameters)
        target = min(begun + move.more, most)
        self.trials[number] = child = Trial(
            number, parameters, started=time.time(), target=target, parent=move.parent, epochs=begun
        )
        self._end(replaced, "pruned")
        return child

    def _task(self, trial: Trial) -> Task:
        trial.state = "running"
        most = self._plan.most
        folder = str(trial_folder(self._folder, trial.number))
        target = trial.target
        if self._ground is not None:
            target = target or int(variant(self._plan.model, trial.parameters).epochs)
        stretch = Stretch(trial.number, trial.parameters, folder, target, most, resumable=most is not None)
        name = f"trial {trial.number}"
        self._in_training[name] = trial
        self._save(trial)
        emit(TrialStarted(number=trial.number, parameters=trial.parameters, epochs=trial.target))
        return Task(name, run_stretch, (self._packed, stretch), timeout=self._timeout, retries=self._retries)

    def _hear(self, event: Event) -> None:
        """Follow the metrics of trials in training, and stop those that are hopeless, or too late."""
        if not isinstance(event, TaskEvent) or not isinstance(event.told, Metric):
            return
        told, trial = event.told, self._in_training.get(event.task)
        if trial is None or self._tasks is None:
            return
        if told.name == self._streamed:
            epoch = told.epoch or told.step
            trial.reports[epoch] = told.value
            self._proposals.report(trial.number, epoch, told.value)
            if self._plan.scheduler.stops(self._proposals.study, self._proposals.frozen(trial.number)):
                self._stop(event.task, trial, "pruned")
        if time.monotonic() >= self._deadline:
            self._stop(event.task, trial, "paused")

    def _stop(self, task: str, trial: Trial, state: State) -> None:
        assert self._tasks is not None
        self._stopped.setdefault(trial.number, state)
        self._tasks.stop(task)

    def _take(self, outcome: Outcome) -> None:
        """How a stretch of a trial ended."""
        trial = self._in_training.pop(outcome.task.name)
        stopped = self._stopped.pop(trial.number, None)
        trial.seconds += outcome.seconds
        trial.attempts += outcome.attempts
        trial.worker = outcome.worker
        if outcome.error is None:
            trial.values, trial.metrics, trial.epochs = (
                outcome.value.values,
                outcome.value.metrics,
                outcome.value.epochs,
            )
            trial.results[trial.epochs] = trial.values[0]
            self._end(trial, self._plan.scheduler.verdict(trial, self._plan.most))
        elif isinstance(outcome.error, TaskStopped) and stopped is not None:
            if trial.reports:
                trial.epochs = max(trial.reports)
                trial.values = (trial.reports[trial.epochs],)
            self._end(trial, stopped)
        else:
            trial.error = str(outcome.error)
            self._end(trial, "failed")

    def _end(self, trial: Trial, state: State) -> None:
        trial.state = state
        self._proposals.tell(trial)
        self._save(trial)
        if state != "paused":
            self._forget_checkpoint(trial.number)
        self._keep_the_best(trial)
        first = None if trial.error is None else trial.error.splitlines()[0]
        emit(
            TrialEnded(
                number=trial.number,
                state=state,
                value=trial.value,
                epochs=trial.epochs,
                seconds=trial.seconds,
                error=first,
            )
        )

    def _save(self, trial: Trial) -> None:
        self.proposals_kept[trial.number] = proposal = self._proposals.proposal(trial.number)
        if self._storage is not None:
            self._storage.save(trial, proposal)

    def _keep_the_best(self, trial: Trial) -> None:
        """Remove the models of all but the best trials (of those that no other one beats, where there are several metrics)."""
        if model_folder(self._folder, trial.number).is_dir():
            self._kept_models.add(trial.number)
        if trial.state == "failed":
            self._forget_model(trial.number)
        if len(self._plan.metrics) == 1:
            ranked = sorted(self._kept_models, key=self._rank)
            for number in ranked[self._keep :]:
                self._forget_model(number)

    def _rank(self, number: int) -> tuple[bool, float, int]:
        trial = self.trials[number]
        value = float("nan") if trial.value is None else trial.value
        return trial.state != "complete", cost(value, self._sign), number

    def _forget_model(self, number: int) -> None:
        self._kept_models.discard(number)
        shutil.rmtree(model_folder(self._folder, number), ignore_errors=True)
        self._forget_empty(number)

    def _forget_checkpoint(self, number: int) -> None:
        shutil.rmtree(trial_folder(self._folder, number) / "checkpoint", ignore_errors=True)
        self._forget_empty(number)

    def _forget_empty(self, number: int) -> None:
        folder = trial_folder(self._folder, number)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _was_interrupted(trial: Trial) -> bool:
    """Whether it was in training when the search before this one ended."""
    return trial.state == "running" or (trial.state == "paused" and trial.epochs < (trial.target or 0))


def _streamed_name(plan: Any, setup: Setup) -> str | None:
    """The metric as events call it, where trials can tell it while they are trained."""
    name = plan.metric_choices[0]
    if not isinstance(name, str) or setup.folds is not None:  # each fold would tell its own
        return None
    from braidwater.model_selection.variants import SeveralFits, is_trainer

    example = plan.example.model if isinstance(plan.example, SeveralFits) else plan.example
    validated = setup.held_out is not None and is_trainer(example) and not name.startswith("validation_")
    return f"validation_{name}" if validated else name
