"""Optuna's part in a search: it proposes hyperparameters, in memory. Trials, their states and their storage are ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from braidwater.model_selection.base import Direction, Trial
from braidwater.model_selection.space import Space

_STATES = {
    "running": TrialState.RUNNING,
    "paused": TrialState.PRUNED,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


class _Reopenable(InMemoryStorage):
    """A trial that was paused, and so is over for Optuna, may get another value when it was trained on."""

    def check_trial_is_updatable(self, trial_id: int, trial_state: TrialState) -> None:
        pass


@dataclass(frozen=True)
class Proposal:
    """What Optuna knows of a trial, so that it can be told again: plain values."""

    params: dict[str, Any]
    distributions: dict[str, str]
    attributes: dict[str, Any]

    def to_json(self) -> str:
        return json.dumps([self.params, self.distributions, self.attributes])

    @staticmethod
    def from_json(text: str) -> Proposal:
        return Proposal(*json.loads(text))


class Proposals:
    """An Optuna study in memory. Its trials have our numbers, after those of an earlier study that it starts from.

    Asking costs what the sampler takes (TPE 2 ms with 200 trials), telling 30 us.
    """

    def __init__(
        self, name: str, directions: Sequence[Direction], space: Space, sampler: Callable[[int], BaseSampler]
    ) -> None:
        with quiet_optuna():
            self.study = optuna.create_study(
                storage=_Reopenable(), study_name=name, directions=list(directions), sampler=sampler(0)
            )
        self._space = space
        self._sampler = sampler
        self._before = 0

    def learn(self, trials: Mapping[int, Trial], proposals: Mapping[int, Proposal]) -> None:
        """Begin with the finished trials of another study, as far as they have a value."""
        for number, trial in sorted(trials.items()):
            if trial.values is not None and number in proposals and trial.state != "failed":
                self.study.add_trial(frozen(trial, proposals[number]))
                self._before += 1

    def restore(self, trial: Trial, proposal: Proposal) -> None:
        """A trial of this study, from its storage. In the order of their numbers."""
        self.study.add_trial(frozen(trial, proposal))

    def ask(self, number: int) -> dict[str, Any]:
        """Hyperparameters for the new trial `number`, which is the next one."""
        self.study.sampler = self._sampler(number)
        return self._space.suggest(self.study.ask())

    def spawn(self, parent: int, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """A new trial with those of the parent's hyperparameters that are not in `parameters`; numbers stay in their ranges."""
        origin = self.frozen(parent)
        kept = {name: _within(origin.distributions.get(name), value) for name, value in parameters.items()}
        params = {
            name: kept.get(name, value) if _is_range(origin.distributions[name]) else value
            for name, value in origin.params.items()
        }
        self.study.add_trial(create_trial(state=TrialState.RUNNING, params=params, distributions=origin.distributions))
        return kept

    def frozen(self, number: int) -> FrozenTrial:
        """The trial as Optuna sees it."""
        storage = self.study._storage
        return storage.get_trial(self._id(number))

    def proposal(self, number: int) -> Proposal:
        """What has to be kept to tell Optuna again."""
        found = self.frozen(number)
        kinds = {name: distribution_to_json(kind) for name, kind in found.distributions.items()}
        return Proposal(dict(found.params), kinds, dict(found.system_attrs))

    def report(self, number: int, epoch: int, value: float) -> None:
        """A value that was heard during training."""
        self.study._storage.set_trial_intermediate_value(self._id(number), epoch, value)

    def tell(self, trial: Trial) -> None:
        """How the trial, or a stretch of it, ended."""
        storage, place = self.study._storage, self._id(trial.number)
        for epoch, value in trial.results.items():
            storage.set_trial_intermediate_value(place, epoch, value)
        if self.frozen(trial.number).state == TrialState.RUNNING:
            # with what else the sampler does after a trial
            values = list(trial.values) if trial.state == "complete" and trial.values is not None else None
            with quiet_optuna():
                self.study.tell(self._before + trial.number, values, state=_STATES[trial.state])
            return
        storage.set_trial_state_values(place, _STATES[trial.state], trial.values)

    def _id(self, number: int) -> int:
        storage = self.study._storage
        return storage.get_trial_id_from_study_id_trial_number(self.study._study_id, self._before + number)


def frozen(trial: Trial, proposal: Proposal) -> FrozenTrial:
    """One of our trials as one of Optuna's."""
    state = _STATES[trial.state]
    values = None if trial.values is None or state in (TrialState.FAIL, TrialState.RUNNING) else list(trial.values)
    found = create_trial(
        state=state,
        values=values,
        params=proposal.params,
        distributions={name: json_to_distribution(kind) for name, kind in proposal.distributions.items()},
        system_attrs=proposal.attributes,
        user_attrs=trial.metrics | ({} if trial.error is None else {"error": trial.error}),
        intermediate_values={**trial.reports, **trial.results},
    )
    found.datetime_start = datetime.fromtimestamp(trial.started)  # Optuna's times have no zone
    if state.is_finished():
        found.datetime_complete = found.datetime_start + timedelta(seconds=trial.seconds)
    return found


def _is_range(distribution: Any) -> bool:
    return hasattr(distribution, "low")


def _within(distribution: Any, value: Any) -> Any:
    return min(max(value, distribution.low), distribution.high) if _is_range(distribution) else value


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna tells the log of each study and trial; ours are events."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
