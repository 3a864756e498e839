"""Trials of a search by the dozen: those that share passes are one task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from braidwater.engines import Engine, Outcome, RunningTasks, Task
from braidwater.errors import BraidwaterError, WorkerError
from braidwater.model_selection.fused.fitting import fit_many
from braidwater.model_selection.trial_run import Found, Packed, Setup, Stretch, measured
from braidwater.model_selection.variants import fit_arguments, variant
from braidwater.planner.many_trials import BUNDLE


class BundledTasks(RunningTasks):
    """Trials as tasks of up to `size` of them, each still an `Outcome` of its own.

    Of a bundle that fails as a whole (its process died) every trial is tried again by itself. A trial cannot be stopped.
    """

    def __init__(self, trials: Iterable[Task | None], setup: Setup, engine: Engine, size: int) -> None:
        self._trials = iter(trials)
        self._setup = Packed(setup)
        self._size = min(size, BUNDLE)
        self._again: list[Task] = []
        self._ready: list[Outcome] = []
        self._bundles: dict[str, list[Task]] = {}
        self._ended = False
        self._running = engine.tasks(self._tasks())

    def __iter__(self) -> BundledTasks:
        return self

    def __next__(self) -> Outcome:
        while not self._ready:
            outcome = next(self._running)
            trials = self._bundles.pop(outcome.task.name, None)
            if trials is None:
                return outcome
            if outcome.error is not None:
                self._again += trials
            else:
                self._ready += _apart(outcome, trials)
        return self._ready.pop(0)

    def stop(self, name: str) -> None:
        """Nothing: a bundle has no metric that would be one trial's."""

    def close(self) -> None:
        self._running.close()

    def _tasks(self) -> Iterator[Task | None]:
        while True:
            if self._again:
                yield self._again.pop(0)
                continue
            trials = list(self._next_trials())
            if trials:
                yield self._bundle(trials)
            elif self._ended and not self._bundles and not self._again:
                return
            else:
                yield None

    def _next_trials(self) -> Iterator[Task]:
        for _ in range(self._size):
            task = next(self._trials, self)  # of all values the one that is no task
            if task is self:
                self._ended = True
            if not isinstance(task, Task):
                return
            yield task

    def _bundle(self, trials: list[Task]) -> Task:
        name = f"{trials[0].name} and {len(trials) - 1} more"
        self._bundles[name] = trials
        stretches = [task.arguments[-1] for task in trials]
        return Task(name, run_bundle, (self._setup, stretches))


def _apart(outcome: Outcome, trials: list[Task]) -> list[Outcome]:
    found: list[Found | BraidwaterError] = outcome.value
    share = outcome.seconds / len(trials)
    return [
        replace(outcome, task=task, value=None, error=one, seconds=share)
        if isinstance(one, BaseException)
        else replace(outcome, task=task, value=replace(one, seconds=share), seconds=share)
        for task, one in zip(trials, found, strict=True)
    ]


def run_bundle(setup: Setup, stretches: list[Stretch]) -> list[Found | BraidwaterError]:
    """Train the models of several trials together; what each is worth, or its error."""
    assert setup.rows is not None
    given = dict(setup.arguments)
    if "weight" in given:
        given["sample_weight"] = given.pop("weight")
    models = [variant(setup.model, stretch.parameters) for stretch in stretches]
    own = [fit_arguments(setup.model, stretch.parameters) for stretch in stretches]
    subsets = [one.get("features") for one in own] if any(own) else None
    fitted = fit_many(models, setup.rows, subsets=subsets, validation=setup.held_out, workers=1, **given)
    return [_worth(fitted, place, setup, stretch) for place, stretch in enumerate(stretches)]


def _worth(fitted: Any, place: int, setup: Setup, stretch: Stretch) -> Found | BraidwaterError:
    error = fitted.errors.get(place)
    if error is not None:
        return error if isinstance(error, BraidwaterError) else WorkerError(f"{type(error).__name__}: {error}")
    try:
        found = measured(fitted[place], setup, stretch)
    except BraidwaterError as failure:
        return failure
    return replace(found, epochs=len(getattr(fitted[place], "history_", ())))
