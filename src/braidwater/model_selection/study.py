"""A study: all trials of a search, and what can be learnt from them."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from braidwater.errors import StudyError, UnsupportedError
from braidwater.model_selection.base import Direction, Trial, cost

if TYPE_CHECKING:
    import optuna

    from braidwater.model_selection.ensembles import TrialEnsemble
    from braidwater.model_selection.proposals import Proposal
    from braidwater.report import Report
    from braidwater.tables import Table


class Study:
    """What `search` found. Models of the best trials lie in `folder`, for as long as the study lives or its storage is there.

    `trials` are in the order of their numbers; `metrics` and `directions` say what was searched for. Where this process did the
    search, `held_out` are the rows that trials were compared on (None: those of the training, or folds), `label` is their label.
    """

    def __init__(
        self,
        name: str,
        metrics: Sequence[str],
        directions: Sequence[Direction],
        trials: dict[int, Trial],
        proposals: dict[int, Proposal],
        folder: Path,
        temporary: TemporaryDirectory[str] | None = None,
    ) -> None:
        self.name = name
        self.metrics = tuple(metrics)
        self.directions = tuple(directions)
        self.folder = folder
        self._trials = trials
        self._proposals = proposals
        self._model: Any = None  # what was searched, where this process did it
        self.held_out: Table | None = None
        self.label: str | None = None
        if temporary is not None:
            weakref.finalize(self, temporary.cleanup)

    @staticmethod
    def open(storage: str | Path, name: str = "study") -> Study:
        """The study `name` in the SQLite file or the database that a search wrote to."""
        from braidwater.model_selection.storage import storage_at

        kept = storage_at(storage, name, make=False)
        try:
            document = kept.document()
            if document is None:
                there = ", ".join(map(repr, kept.names())) or "none"
                raise StudyError(f"There is no study {name!r} in {str(kept.path)!r}; there is {there}.")
            pairs = kept.trials()
        finally:
            kept.close()
        return Study(
            name,
            document["metrics"],
            document["directions"],
            {trial.number: trial for trial, _ in pairs},
            {trial.number: proposal for trial, proposal in pairs},
            kept.folder,
        )

    @property
    def trials(self) -> list[Trial]:
        return list(self._trials.values())

    @property
    def best_trial(self) -> Trial:
        """The best of the complete trials by the first metric; of those that were stopped, where none is complete."""
        measured = [trial for trial in self.trials if trial.values is not None and trial.state != "failed"]
        ranked = [trial for trial in measured if trial.state == "complete"] or measured
        if not ranked:
            raise UnsupportedError(f"No trial of study {self.name!r} has a value. {self._why_none()}")
        return min(ranked, key=lambda trial: (cost(trial.values[0], self.sign), trial.number))  # type: ignore[index]

    @property
    def best_parameters(self) -> dict[str, Any]:
        return dict(self.best_trial.parameters)

    @property
    def best_value(self) -> float:
        return float(self.best_trial.value)  # type: ignore[arg-type]

    @property
    def sign(self) -> float:
        """1 where smaller values of the first metric are better, else -1."""
        return 1.0 if self.directions[0] == "minimize" else -1.0

    @property
    def pareto_front(self) -> list[Trial]:
        """The complete trials that no other one is better than in one metric without being worse in another."""
        points = {
            trial.number: [v if d == "minimize" else -v for v, d in zip(trial.values, self.directions, strict=True)]
            for trial in self.trials
            if trial.state == "complete" and trial.values is not None
        }
        return [
            self._trials[number]
            for number, point in points.items()
            if not any(_dominates(other, point) for other in points.values())
        ]

    def best_model(self, **options: Any) -> Any:
        """The fitted model of the best trial, loaded; `options` go to the ``load`` of its class (``module``, ``trust``)."""
        return self.model(self.best_trial.number, **options)

    def model(self, number: int, **options: Any) -> Any:
        """The fitted model of a trial. Only those of the best are kept (`search(keep=...)`)."""
        from braidwater.model_selection.variants import is_trainer, variant
        from braidwater.report import load

        place = model_folder(self.folder, number)
        if not place.is_dir():
            raise UnsupportedError(
                f"The model of trial {number} was not kept; there are models of {self._kept()}. Search with a larger `keep`, or "
                "train it again with its parameters."
            )
        if self._model is not None:
            made = variant(self._model, self._trials[number].parameters)
            if is_trainer(made):
                options.setdefault("module", made.module)
        return load(place, **options)

    def ensemble(self, data: Any = None, **options: Any) -> TrialEnsemble:
        """The best trials as one model: by greedy selection, their mean, a vote, or stacking. See `ensemble_of`."""
        from braidwater.model_selection.ensembles import ensemble_of

        return ensemble_of(self, data, **options)

    def importance(self) -> dict[str, float]:
        """How much of the spread of the first metric each hyperparameter explains, largest first; they add up to 1.

        fANOVA (Hutter, Hoos and Leyton-Brown 2014) by Optuna, on hyperparameters that all complete trials have.
        """
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        complete = [trial for trial in self.trials if trial.state == "complete"]
        if len(complete) < 2:
            raise UnsupportedError(f"Importance needs two complete trials or more; there are {len(complete)}.")
        target = None if len(self.metrics) == 1 else lambda trial: trial.values[0]
        found = get_param_importances(self.to_optuna(), evaluator=FanovaImportanceEvaluator(seed=0), target=target)
        return {name: float(share) for name, share in found.items()}

    def to_table(self) -> pa.Table:
        """A row a trial: its number, state, hyperparameters (``parameter_NAME``), metrics, seconds, epochs, error."""
        names = list(dict.fromkeys(name for trial in self.trials for name in trial.parameters))
        columns: dict[str, Any] = {
            "number": [trial.number for trial in self.trials],
            "state": [trial.state for trial in self.trials],
        }
        for name in names:
            columns[f"parameter_{name}"] = _column([trial.parameters.get(name) for trial in self.trials])
        for place, metric in enumerate(self.metrics):
            columns[metric] = pa.array([t.values[place] if t.values else None for t in self.trials], pa.float64())
        columns["seconds"] = [trial.seconds for trial in self.trials]
        columns["epochs"] = [trial.epochs for trial in self.trials]
        columns["error"] = pa.array([trial.error for trial in self.trials], pa.string())
        return pa.table(columns)

    def to_optuna(self) -> optuna.Study:
        """The study as one of Optuna's, in memory: for its plots, its importances, and optuna-dashboard."""
        import optuna

        from braidwater.model_selection.proposals import frozen, quiet_optuna

        with quiet_optuna():
            study = optuna.create_study(study_name=self.name, directions=list(self.directions))
            for trial in self.trials:
                study.add_trial(frozen(trial, self._proposals[trial.number]))
        return study

    def to_mlflow(self, address: str, experiment: str | None = None) -> str:
        """Write the study to an MLflow server, a run a trial below one of the study, whose id is returned. See `export_study`."""
        from braidwater.model_selection.mlflow_export import export_study

        return export_study(self, address, experiment)

    def report(self) -> Report:
        """A page with the history, the hyperparameters and the workers of the search: ``study.report().write(path)``."""
        from braidwater.model_selection.page import make_report

        return make_report(self)

    def __repr__(self) -> str:
        states = [trial.state for trial in self.trials]
        counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        return f"<study {self.name}: {counted or 'no trials'}>"

    def _kept(self) -> str:
        numbers = [number for number in self._trials if model_folder(self.folder, number).is_dir()]
        return f"trials {', '.join(map(str, numbers))}" if numbers else "none"

    def _why_none(self) -> str:
        failed = [trial for trial in self.trials if trial.error]
        if not failed:
            return "There is none that was trained."
        return f"{len(failed)} failed; trial {failed[0].number}: {(failed[0].error or '').splitlines()[0]}"


def model_folder(folder: Path, number: int) -> Path:
    """Where the model of a trial lies."""
    return trial_folder(folder, number) / "model"


def trial_folder(folder: Path, number: int) -> Path:
    """What a trial has on the disk."""
    return folder / f"trial-{number:06d}"


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))


def _column(values: list[Any]) -> pa.Array:
    """Hyperparameters as a column: as they are where they are of one kind, else as texts."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values])
