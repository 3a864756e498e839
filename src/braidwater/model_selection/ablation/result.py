"""What an ablation found: a metric without each component, and its difference to that of the whole model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from braidwater.errors import StudyError
from braidwater.model_selection.ablation.components import FULL
from braidwater.model_selection.base import Trial
from braidwater.model_selection.study import Study

if TYPE_CHECKING:
    from braidwater.report import Report

WITHOUT, REPEAT = "without", "repeat"  # the hyperparameters of its trials


@dataclass(frozen=True)
class Effect:
    """The metric without a component, over repetitions that have a value; `difference` is to the whole model of the same seed.

    Deviations are of the sample (n - 1), None where there is one repetition only. `harm` is the difference with the sign that
    makes a loss of quality positive: the larger, the more the component is worth. None where nothing could be compared.
    """

    component: str
    metric: float | None
    deviation: float | None
    difference: float | None
    difference_deviation: float | None
    harm: float | None
    repeats: int
    seconds: float
    error: str | None


class Ablation:
    """The effects of all components, the most valuable first; the whole model is the first, without ``"nothing"``.

    `study` holds the trials: ``without`` and ``repeat`` are their parameters.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.effects = effects_of(study)

    @staticmethod
    def open(storage: str | Path, name: str = "ablation") -> Ablation:
        """The ablation that was kept in `storage`."""
        study = Study.open(storage, name)
        if not is_ablation(study):
            raise StudyError(
                f"Study {name!r} in {str(storage)!r} is a search and no ablation; open it with Study.open."
            )
        return Ablation(study)

    @property
    def metric(self) -> str:
        return self.study.metrics[0]

    def to_table(self) -> pa.Table:
        """A row a component: `component`, the metric by its name, `deviation`, `difference`, `difference_deviation`, `repeats`,
        `seconds` (mean of a training), `error` (the first line of the first one)."""
        figures = ("deviation", "difference", "difference_deviation")
        columns = {"component": pa.array([one.component for one in self.effects])}
        columns[self.metric] = pa.array([one.metric for one in self.effects], pa.float64())
        columns |= {name: pa.array([getattr(one, name) for one in self.effects], pa.float64()) for name in figures}
        columns["repeats"] = pa.array([one.repeats for one in self.effects])
        columns["seconds"] = pa.array([one.seconds for one in self.effects])
        columns["error"] = pa.array([one.error for one in self.effects], pa.string())
        return pa.table(columns)

    def report(self) -> Report:
        """The page of the study, with the effects first."""
        return self.study.report()

    def __str__(self) -> str:
        width = max(len("without"), *(len(one.component) for one in self.effects))
        lines = [f"{'without':<{width}}  {self.metric:>20}  {'difference':>20}"]
        for one in self.effects:
            value, change = _spread(one.metric, one.deviation), _spread(one.difference, one.difference_deviation)
            told = f"  {one.error}" if one.error else ""
            lines.append(f"{one.component:<{width}}  {value:>20}  {change:>20}{told}")
        return "\n".join(lines)


def is_ablation(study: Study) -> bool:
    """Whether the trials of a study leave components out."""
    return bool(study.trials) and all(set(trial.parameters) == {WITHOUT, REPEAT} for trial in study.trials)


def effects_of(study: Study) -> list[Effect]:
    """The whole model, then every component by what it is worth."""
    by_component: dict[str, list[Trial]] = {FULL: []}
    for trial in study.trials:
        by_component.setdefault(trial.parameters[WITHOUT], []).append(trial)
    samples = {name: _samples(trials, study.metrics[0]) for name, trials in by_component.items()}
    effects = [_effect(name, by_component[name], samples[name], samples[FULL], study.sign) for name in by_component]
    return sorted(effects, key=lambda one: (one.component != FULL, -math.inf if one.harm is None else -one.harm))


def _samples(trials: list[Trial], metric: str) -> dict[tuple[int, int], float]:
    """Values by repetition and fold."""
    found: dict[tuple[int, int], float] = {}
    for trial in trials:
        if trial.state != "complete" or trial.value is None:
            continue
        repeat = trial.parameters[REPEAT]
        folds = [name for name in trial.metrics if name.startswith(f"{metric} (fold ")]
        for number, name in enumerate(folds):
            found[repeat, number] = trial.metrics[name]
        if not folds:
            found[repeat, 0] = trial.value
    return found


def _effect(
    name: str,
    trials: list[Trial],
    own: dict[tuple[int, int], float],
    full: dict[tuple[int, int], float],
    sign: float,
) -> Effect:
    value, deviation = _mean_and_deviation(list(own.values()))
    difference, spread = _mean_and_deviation([own[key] - full[key] for key in own if key in full])
    error = next((trial.error.splitlines()[0] for trial in trials if trial.error), None)
    seconds = float(np.mean([trial.seconds for trial in trials])) if trials else 0.0
    harm = None if difference is None else sign * difference
    return Effect(name, value, deviation, difference, spread, harm, len(own), seconds, error)


def _mean_and_deviation(values: list[float]) -> tuple[float | None, float | None]:
    if not values:
        return None, None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def _spread(value: float | None, deviation: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if deviation is None else f"{value:.5g} ± {deviation:.2g}"
