"""Searching over models: many trials, each in a process of its own, none waiting for another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from braidwater.engines import Engine, LocalEngine
from braidwater.errors import EmptyTableError, OptionError, StudyError, UnsupportedError
from braidwater.events import Planned, emit, running
from braidwater.extras import needed_for
from braidwater.model_selection.base import Budget, Direction, Scheduler, ToTheEnd, direction_of
from braidwater.model_selection.folds import Folds, is_splitter, splitter_of
from braidwater.model_selection.rows import encode_once, needed_columns, shareable
from braidwater.model_selection.sharing import FusedChoice, shared_passes
from braidwater.model_selection.space import Choice, Space, SpaceChoice
from braidwater.model_selection.study import Study
from braidwater.model_selection.trial_run import MetricChoice, Setup, metric_name
from braidwater.model_selection.variants import (
    SeveralFits,
    check_names,
    default_metric,
    fit_arguments,
    is_made,
    is_trainer,
    variant,
)
from braidwater.options import current_options
from braidwater.tables import Table, table, train_test_split

if TYPE_CHECKING:
    from braidwater.encoding import FittedEncoding
    from braidwater.model_selection.hopper.ground import Ground
    from braidwater.model_selection.proposals import Proposals
    from braidwater.model_selection.storage import Storage


def search(
    model: Any,
    space: SpaceChoice,
    data: Any,
    *,
    metric: MetricChoice | Sequence[MetricChoice] | None = None,
    direction: str | Sequence[str] = "auto",
    budget: Budget | int = 50,
    sampler: Any = "tpe",
    scheduler: Any = None,
    validation: Any = 0.2,
    workers: int | None = None,
    engine: Engine | None = None,
    storage: str | Path | None = None,
    name: str = "study",
    resume: bool = True,
    warm_start: Study | None = None,
    keep: int = 3,
    seed: int = 0,
    retries: int = 1,
    trial_timeout: float | None = None,
    hopper: bool = False,
    partitions: int | None = None,
    fused: FusedChoice = "auto",
    **arguments: Any,
) -> Study:
    """Try hyperparameters of `model` on a table, and return all trials with the best models.

    `model` is an estimator, a `Trainer`, or a function that makes one of a dictionary of parameters. `space` gives a range for
    each hyperparameter (`Float`, `LogFloat`, `Int`, `Choice`), or is a function of an Optuna trial that returns the parameters,
    for those that depend on each other. `arguments` go to ``fit``: ``label``, ``features``, ...; ``"features"`` may also be
    searched, as a choice of lists of columns.

    `metric` is the name of a figure (of the rows held out, where there are some: ``"accuracy"`` of ``evaluate``,
    ``"validation_loss"`` of a trainer's history), or a function of (fitted model, rows); a list of several searches for
    their Pareto front. `direction` follows from the name where it can. `validation` is the share of the rows that models
    are compared on, another table, folds, or None. With folds (`KFold(5)`, any splitter of `cross_validate`) a trial is worth the
    mean over them, and the model that is kept is the best trial's, trained once more on all rows.

    `sampler` proposes hyperparameters: ``"tpe"``, ``"random"``, ``"grid"``, ``"cmaes"``, ``"gp"``, ``"nsga2"``, ``"qmc"``,
    ``"differential_evolution"``, or an Optuna sampler. `scheduler` decides how far each trial is trained: None (to its end),
    ``"asha"``, ``"hyperband"``, ``"population_based"``, a pruner by name (``"median"``, ``"wilcoxon"``) or of Optuna's. A trial
    that gets more epochs goes on from its checkpoint.

    Rows are read and encoded once; `workers` processes train on the same blocks, each with its share of cores and memory. With
    `hopper` each of them owns a part of the blocks and reads no other, and trainers hop from worker to worker (see `hop`); with
    more `partitions` than workers each owns several.
    Estimators share passes where that is cheaper (`explain_search` says): as riders of a scan that goes round, which a trial
    joins at the current block as soon as a place is free (``"circular"``); or, where nothing depends on one trial's result or
    time (random, grid or qmc; no scheduler, no limit of seconds), by the dozen in lockstep (``"lockstep"``, see `fit_many`).
    ``fused=True`` stacks nets as well, ``fused=False`` trains each trial in a process of its own. A
    trial that fails (an error, a metric that is missing or no number, more than `trial_timeout` seconds) is recorded with
    its error; one whose process dies is begun anew `retries` times. From the same seed comes the same search on one worker; on
    several, the same parameters for each trial number where the sampler does not look at results (random, grid, qmc).

    With `storage` (an SQLite file, or ``postgresql://USER@HOST/DATABASE``) every trial is kept as it ends under the
    study's `name`, and a later call with ``resume`` goes on after a crash or Ctrl-C up to the same budget. `warm_start` is an
    earlier study to learn from. Models of the `keep` best trials are kept.

    Cost of the search itself (``benchmarks/search.py``): 3 ms of CPU a trial with TPE (2.5 of them in Optuna), 1 ms with random
    search; a trial that is pruned after some reports takes 2 ms more, its record in SQLite included.
    """
    with needed_for("A search"):
        from braidwater.model_selection.fold_trials import refit
        from braidwater.model_selection.run import SearchRun

    plan = _Plan(model, space, data, metric, direction, budget, sampler, scheduler, validation, arguments, seed)
    if keep < 1:
        raise OptionError("keep", keep, "at least 1: the best model")
    if partitions is not None and not hopper:
        raise OptionError("partitions", partitions, "given with hopper=True: other trials read all rows")
    count, engine = places_of(plan, workers, engine, hopper=hopper)
    kept = None if storage is None else open_storage(storage, name)
    temporary = TemporaryDirectory(prefix="braidwater-search-") if kept is None else None
    try:
        folder = Path(temporary.name) if temporary is not None else kept.folder  # type: ignore[union-attr]
        proposals, trials = plan.proposals(name), {}
        if warm_start is not None:
            proposals.learn(warm_start._trials, warm_start._proposals)
        if kept is not None:
            trials = _restored(kept, plan, proposals, resume)
        with running("search"), ExitStack() as stack:
            setup = plan.setup(folder / "rows", engine, hopper=hopper)
            ground = plan.ground(setup, count, partitions or count, engine, stack) if hopper else None
            shared = None if hopper else shared_passes(plan, setup, count, engine, trial_timeout, fused)
            if shared is not None:
                emit(Planned(text=str(shared)))
                plan.encode(setup, engine, shared.encoding)
            run = SearchRun(
                plan, setup, proposals, trials, folder, kept, engine, keep, retries, trial_timeout, seed, ground, shared
            )
            run.to_the_end(name)
            study = Study(name, plan.metrics, plan.directions, run.trials, run.proposals_kept, folder, temporary)
            if plan.folds is not None:
                refit(study, setup, engine)
    except BaseException:
        if temporary is not None:
            temporary.cleanup()
        raise
    finally:
        if kept is not None:
            kept.close()
    study._model = model
    study.held_out, study.label = plan.held_out, plan.arguments.get("label")
    return study


def places_of(plan: _Plan, workers: int | None, engine: Engine | None, *, hopper: bool = False) -> tuple[int, Engine]:
    """How many trials run at a time, and where. Trials keep checkpoints in files, which an engine has to see, unless they hop
    to rows that stay there."""
    if workers is not None and workers < 1:
        raise OptionError("workers", workers, "at least 1")
    count = min(workers or current_options().workers, plan.budget.trials or 2**31)
    if hopper and engine is not None and engine.stays(plan.rows):
        return min(count, engine.workers), engine
    return count, engine if engine is not None and engine.files_here else LocalEngine(count)


def open_storage(storage: str | Path, name: str) -> Storage:
    """The storage of a study, which nobody else searches in from now on."""
    from braidwater.model_selection.storage import storage_at

    kept = storage_at(storage, name)
    try:
        kept.lock()
    except BaseException:
        kept.close()
        raise
    return kept


class _Plan:
    """What is searched, checked before anything runs."""

    def __init__(
        self,
        model: Any,
        space: SpaceChoice,
        data: Any,
        metric: MetricChoice | Sequence[MetricChoice] | None,
        direction: str | Sequence[str],
        budget: Budget | int,
        sampler: Any,
        scheduler: Any,
        validation: Any,
        arguments: Mapping[str, Any],
        seed: int,
    ) -> None:
        from braidwater.model_selection.samplers import make_samplers
        from braidwater.model_selection.schedulers import find_scheduler

        self.model = model
        self.space = Space(space)
        check_names(model, self.space.names)
        self.sampler = make_samplers(sampler, self.space, seed)
        self.independent = sampler in ("random", "grid", "qmc")  # of results: trials can be asked for by the dozen
        self.scheduler: Scheduler = find_scheduler(scheduler)
        self.budget = self._budget(budget, sampler)
        if self.scheduler.begins_all and self.budget.trials is None:
            raise OptionError("budget", self.budget, f"one with trials: the population of {self.scheduler.name}")
        self.arguments = dict(arguments)
        self.rows, self.held_out = _split(table(data), None if is_splitter(validation) else validation, seed)
        self.table_fingerprint = table(data).fingerprint() if not hasattr(data, "columns") else None
        self.example = self._example(seed)
        self.folds_wish = validation if is_splitter(validation) else None
        self.folds = self._cut(seed)
        validated = self.held_out is not None or self.folds is not None
        wish = default_metric(self.example, validated) if metric is None else metric
        self.metric_choices: tuple[MetricChoice, ...] = (
            (wish,) if isinstance(wish, str) or callable(wish) else tuple(wish)
        )
        self.metrics = tuple(metric_name(one) for one in self.metric_choices)
        self.directions = self._directions(direction)
        self.most = self._most_epochs()

    def _cut(self, seed: int) -> Folds | None:
        """The folds, where they are the validation."""
        if self.folds_wish is None:
            return None
        if not isinstance(self.scheduler, ToTheEnd):
            raise OptionError(
                "scheduler",
                self.scheduler.name,
                "None where folds are the validation: a trial is several trainings then",
            )
        return splitter_of(self.folds_wish, "number").cut(self.rows, self.arguments.get("label"), seed)

    def _budget(self, wish: Budget | int, sampler: Any) -> Budget:
        budget = Budget.of(wish)
        if sampler != "grid":
            return budget
        points = 1
        for values in self.space.grid().values():
            points *= len(values)
        return replace(budget, trials=min(points, budget.trials or points))

    def _example(self, seed: int) -> Any:
        """A model like those of the trials."""
        if not is_made(self.model):
            return self.model
        import optuna

        from braidwater.model_selection.proposals import quiet_optuna

        with quiet_optuna():
            study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
            return variant(self.model, self.space.suggest(study.ask()))

    def _directions(self, wish: str | Sequence[str]) -> tuple[Direction, ...]:
        wishes = [wish] * len(self.metrics) if isinstance(wish, str) else list(wish)
        if len(wishes) != len(self.metrics) or not self.metrics:
            raise OptionError("direction", wish, f"one for each of the metrics {', '.join(self.metrics)}")
        if len(self.metrics) > 1 and not self.scheduler.several_metrics:
            raise UnsupportedError("A scheduler compares trials by one metric. Search for several with scheduler=None.")
        return tuple(direction_of(name, one) for name, one in zip(self.metrics, wishes, strict=True))

    def _most_epochs(self) -> int | None:
        """The epochs of a whole training, where the scheduler counts in them."""
        if not self.scheduler.in_epochs:
            return None
        if not is_trainer(self.example):
            raise UnsupportedError(
                f"scheduler={self.scheduler.name!r} trains by epochs and goes on from checkpoints, which a Trainer does and a "
                f"{type(self.example).__name__} does not. Use scheduler=None or a pruner ('median')."
            )
        if "epochs" in self.space.names:
            raise OptionError(
                "space['epochs']", self.space.parameters["epochs"], f"left out: {self.scheduler.name} decides on epochs"
            )
        return int(self.example.epochs)

    def proposals(self, name: str) -> Proposals:
        """Optuna's study, empty."""
        from braidwater.model_selection.proposals import Proposals

        return Proposals(name, self.directions, self.space, self.sampler)

    def setup(self, folder: Path, engine: Engine, *, hopper: bool = False) -> Setup:
        """The rows where every process finds them, unless models hop to where they stay."""
        from braidwater.model_selection.fold_trials import FoldRows

        if hopper and engine.stays(self.rows):
            return Setup(self.model, self.rows, self.held_out, self.arguments, self.metric_choices)
        whole = not is_trainer(self.example) or "features" in self.space.names
        columns = None if whole else needed_columns(self.rows, self.arguments)
        if columns is not None and self.folds is not None:
            columns = list(dict.fromkeys([*columns, *self.folds.parts.columns]))
        rows = shareable(self.rows, folder, columns)
        held_out = None if self.held_out is None else shareable(self.held_out, folder, columns)
        folds = None if self.folds is None else FoldRows.of(rows, self.folds)
        return Setup(self.model, rows, held_out, self.arguments, self.metric_choices, folds=folds)

    def encode(self, setup: Setup, engine: Engine, common: FittedEncoding | None) -> None:
        """Write the blocks that trials will read: those of `common` columns, where all ride one scan."""
        if setup.folds is not None:
            for arguments in self.arguments_of_trials:
                setup.folds.encode(self.example, arguments, self.metric_choices, engine)
            return
        assert setup.rows is not None
        for arguments in [self.arguments] if common is not None else self.arguments_of_trials:
            encode_for_trials(self.example, setup.rows, setup.held_out, arguments, engine, common)

    @property
    def arguments_of_trials(self) -> list[dict[str, Any]]:
        """What trials are fitted with: each choice of columns, where those are searched."""
        wish = self.space.parameters.get("features")
        if not isinstance(wish, Choice):
            return [self.arguments]
        return [self.arguments | fit_arguments(self.model, {"features": columns}) for columns in wish.values]

    def ground(self, setup: Setup, workers: int, partitions: int, engine: Engine, stack: ExitStack) -> Ground:
        """The rows as partitions that trainers hop over."""
        from braidwater.model_selection.hopper.ground import make_ground

        if self.folds is not None:
            raise OptionError("hopper", True, "False where folds are the validation")
        if fit_arguments(self.model, dict.fromkeys(self.space.names)):
            raise OptionError("hopper", True, "False where columns are searched: all models hop over the same blocks")
        if not is_trainer(self.example):
            raise UnsupportedError(
                f"hopper=True is for trainers; a {type(self.example).__name__} is trained by whole passes, which fit_many shares."
            )
        assert setup.rows is not None
        return make_ground(self.example, setup.rows, setup.held_out, self.arguments, partitions, engine, stack, workers)

    def document(self) -> dict[str, Any]:
        """What a study must have in common with one that it goes on with."""
        found = self.table_fingerprint
        return {
            "metrics": list(self.metrics),
            "directions": list(self.directions),
            "space": self.space.to_json(),
            "folds": None if self.folds_wish is None else repr(self.folds_wish),
            "table": self.rows.name,
            "fingerprint": None if found is None else hashlib.sha256(found.encode()).hexdigest(),
        }


def _split(rows: Table, validation: Any, seed: int) -> tuple[Table, Table | None]:
    if not rows.statistics([]).rows:
        raise EmptyTableError(f"Table {rows.name!r} has no rows to train on.")
    if validation is None:
        return rows, None
    if isinstance(validation, bool | int):
        raise OptionError("validation", validation, "a share of the rows between 0 and 1, KFold(5), a table, or None")
    if isinstance(validation, float):
        return train_test_split(rows, validation, seed=seed)
    return rows, table(validation)


def encode_for_trials(
    example: Any,
    rows: Table,
    held_out: Table | None,
    arguments: Mapping[str, Any],
    engine: Engine,
    common: FittedEncoding | None = None,
) -> None:
    """Fit the encoding and write the blocks that trials share, where the model shows its encoding; or of the `common` one."""
    if isinstance(example, SeveralFits):
        for model, own in example.fits:
            encode_for_trials(model, rows, held_out, own, engine)
        return
    if is_trainer(example):
        roles = {"label", "features", "exclude", "weight"}
        encoding = example.encode(rows, **{name: value for name, value in arguments.items() if name in roles})
        evaluation = encoding.for_evaluation()
    elif common is not None:
        encoding, evaluation = common, replace(common, weight=None, offset=None).for_evaluation()
    elif hasattr(example, "_open"):
        given = {"features": None, "label": None, "exclude": (), "sample_weight": None, "offset": None}
        given |= {name: value for name, value in arguments.items() if name in given}
        training = variant(example, {})._open(rows, None, engine=None, **given)
        encoding = training.encoder
        evaluation = replace(training.encoding, weight=None, offset=None).for_evaluation()
    else:
        return
    encode_once(rows, encoding, engine)
    if held_out is not None:
        encode_once(held_out, evaluation, engine)


def _restored(kept: Storage, plan: _Plan, proposals: Proposals, resume: bool) -> dict[int, Any]:
    """The trials of the study that is gone on with."""
    before, now = kept.document(), plan.document()
    if before is None:
        kept.begin(now)
        return {}
    if not resume:
        raise StudyError(
            f"{str(kept.path)!r} has a study {kept.name!r} already. Go on with it (resume=True), or give another name."
        )
    for what, value in now.items():
        if before.get(what) != value and what != "table":
            told = (
                "the table has changed" if what == "fingerprint" else f"its {what} is {before.get(what)}, here {value}"
            )
            raise StudyError(
                f"Study {kept.name!r} in {str(kept.path)!r} is another one: {told}. Give this search another name; "
                "warm_start=Study.open(...) learns from the other."
            )
    trials = {}
    for trial, proposal in kept.trials():
        trials[trial.number] = trial
        proposals.restore(trial, proposal)
    return trials
