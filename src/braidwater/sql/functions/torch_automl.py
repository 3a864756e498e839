"""torch_automl: a search over nets and their parameters, which hop from worker to worker over the rows where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from braidwater.errors import OptionError
from braidwater.model_selection.schedulers import Hyperband
from braidwater.model_selection.space import SpaceChoice
from braidwater.sql.functions.torch_grids import Grid
from braidwater.sql.functions.torch_jobs import FIGURES, FITTED, SUMMARY, Job, Telling, about, make_trainer, now, write
from braidwater.sql.functions.torch_models import MODEL, Architecture, architecture, stored
from braidwater.sql.functions.torch_select import KEY, SELECTION, epochs_of
from braidwater.sql.names import parse_options
from braidwater.sql.place import Place
from braidwater.sql.registry import Columns, Integers, Output, Source, function

if TYPE_CHECKING:
    from braidwater.deep import Trainer
    from braidwater.model_selection import Study

METHODS: dict[str, dict[str, Any]] = {
    "hyperband": {"R": 6, "eta": 3, "skip_last": 0},
    "hyperopt": {"num_configs": 20, "num_iterations": 5, "algorithm": "tpe"},
    "grid": {"num_iterations": 5},
}
SEARCHED = {"automl_method": "text", "automl_params": "text", "random_state": "integer", "best_mst_key": "integer"}
_SAMPLERS = {"tpe": "tpe", "rand": "random", "random": "random"}


@function()
def torch_automl(
    place: Place,
    source_table: Source,
    model_output_table: Output,
    model_arch_table: Source,
    model_selection_table: Output,
    model_id_list: Integers,
    compile_params_grid: str,
    fit_params_grid: str,
    dependent_varname: Columns,
    independent_varname: Columns,
    automl_method: str = "hyperband",
    automl_params: str | None = None,
    random_state: int = 0,
    use_gpus: bool = False,
    validation_table: Source | None = None,
    metrics_compute_frequency: int | None = None,
    name: str | None = None,
    description: str | None = None,
) -> str:
    """Search architectures and parameters of nets by Hyperband, TPE, at random or on a grid; nets hop from worker to worker.

    source_table: the table of the rows.
    model_output_table: the table to write the models into, by mst_key; OUT_info and OUT_summary are written beside it.
    model_arch_table: the table of architectures, see load_torch_model.
    model_selection_table: the table to write into what was tried: mst_key, model_id, compile_params, fit_params.
    model_id_list: the numbers of the nets to try.
    compile_params_grid: a dictionary of lists, such as $${'loss': ['cross_entropy'], 'optimizer_params_list': [{'optimizer':
        ['adam'], 'lr': [1e-4, 1e-1, 'log']}]}$$; a list that ends with 'linear', 'log' or 'log_near_one' is a range.
    fit_params_grid: such as $${'batch_size': [32, 64], 'epochs': [1]}$$.
    dependent_varname: the column to learn: classes, or numbers.
    independent_varname: the columns to learn it from, by commas; or one column of arrays.
    automl_method: 'hyperband', 'hyperopt' or 'grid' (lists only).
    automl_params: of hyperband 'R=6, eta=3, skip_last=0', of hyperopt 'num_configs=20, num_iterations=5, algorithm=tpe' (or
        rand), of grid 'num_iterations=5'.
    random_state: the seed of the search.
    use_gpus: whether to train on GPUs where there are any.
    validation_table: rows to compare nets on; else they are compared by the loss of the training.
    metrics_compute_frequency: after how many iterations figures are told; at the end only where it is NULL.
    name: a name of your own.
    description: a text of your own.
    """
    job = Job.of(place, source_table, dependent_varname, independent_varname, validation_table)
    summary, info = model_output_table.suffixed("_summary"), model_output_table.suffixed("_info")
    place.refuse_existing(model_output_table, model_selection_table, summary, info)
    grid = Grid.of(model_id_list, compile_params_grid, fit_params_grid)
    nets = {one: architecture(place, model_arch_table, one) for one in grid.model_ids}
    plan = Plan.of(automl_method, automl_params, grid, random_state)
    telling = Telling.of(plan.iterations, metrics_compute_frequency)
    begun = now()
    study = plan.search(job, Maker(nets, plan.iterations, use_gpus), grid)
    tried = [{"mst_key": trial.number + 1, **_configuration(trial.parameters)} for trial in study.trials]
    models, told = [], []
    for trial, row in zip(study.trials, tried, strict=True):
        if trial.state != "failed":
            fitted: Trainer = study.model(trial.number)
            told.append(row | telling.figures(fitted, epochs_of(row)))
            models.append({"mst_key": row["mst_key"]} | stored(fitted, nets[row["model_id"]], None))
    best = study.best_trial.number + 1  # an error where every one has failed
    record = about(job, telling, model_output_table, name, description, warm_start=False, begun=begun)
    record |= {"model_arch_table": model_arch_table.text, "class_values": None} | vars(plan) | {"best_mst_key": best}
    write(place, model_selection_table, SELECTION, tried, drop=False)
    write(place, model_output_table, KEY | MODEL, models, drop=False)
    write(place, info, KEY | FIGURES, told, drop=False)
    write(place, summary, SUMMARY | SEARCHED, [record], drop=False)
    return f"mst_key {best} is the best of {len(tried)}: {study.metrics[0]} {study.best_value:.6g}"


@function()
def hyperband_schedule(place: Place, schedule_table: Output, r: int, eta: int = 3, skip_last: int = 0) -> None:
    """How many nets torch_automl trains for how many iterations: round i of bracket s has n_i nets, which get r_i.

    schedule_table: the table to write into.
    r: the most iterations of a net.
    eta: one of so many goes on to the next round.
    skip_last: so many rounds at the end of each bracket are left out.
    """
    place.refuse_existing(schedule_table)
    rows = []
    for size, rungs in Rounds.of(r, eta, skip_last, each=1).brackets(r):
        s = len(rungs) + skip_last - 1
        rows += [{"s": s, "i": i, "n_i": size // eta**i, "r_i": rung} for i, rung in enumerate(rungs)]
    place.create(schedule_table, dict.fromkeys(("s", "i", "n_i", "r_i"), "integer"), rows)


@dataclass(frozen=True)
class Rounds(Hyperband):
    """Hyperband with as many nets in each bracket as MADlib has, and without the last rounds of each."""

    skip_last: int = 0

    @staticmethod
    def of(most: int, eta: int, skip_last: int, *, each: int) -> Rounds:
        """Of `most` iterations, each of which is so many epochs."""
        last = 0
        while eta > 1 and eta ** (last + 1) <= most:
            last += 1
        if most < 1 or eta < 2 or not 0 <= skip_last <= last:
            raise OptionError(
                "automl_params",
                f"R={most}, eta={eta}, skip_last={skip_last}",
                "R from 1 on, eta from 2 on, and a round left",
            )
        return Rounds(min_epochs=most // eta**last * each, reduction=eta, skip_last=skip_last)

    def brackets(self, most: int) -> list[tuple[int, list[int]]]:
        rungs = self.rungs(most)
        count = len(rungs)
        sizes = {s: count // (s + 1) * self.reduction**s for s in range(count - 1, self.skip_last - 1, -1)}
        return [(size, rungs[count - 1 - s : count - self.skip_last]) for s, size in sizes.items()]


@dataclass(frozen=True)
class Maker:
    """Makes the trainer of a configuration; worker processes get it too."""

    nets: Mapping[int, Architecture]
    iterations: int
    gpus: bool

    def __call__(self, parameters: Mapping[str, Any]) -> Trainer:
        chosen = _configuration(parameters)
        texts = chosen["compile_params"], chosen["fit_params"]
        return make_trainer(self.nets[chosen["model_id"]], *texts, self.iterations, gpus=self.gpus)


@dataclass(frozen=True)
class Plan:
    """A search: its method, and how many nets are trained for how long."""

    automl_method: str
    automl_params: str
    random_state: int
    given: Mapping[str, Any]
    iterations: int

    @staticmethod
    def of(method: str, params: str | None, grid: Grid, seed: int) -> Plan:
        if method not in METHODS:
            raise OptionError("automl_method", method, f"one of {', '.join(METHODS)}")
        given = parse_options("automl_params", params, METHODS[method])
        if given.get("algorithm", "tpe") not in _SAMPLERS:
            raise OptionError("algorithm", given["algorithm"], "tpe or rand")
        shown = ", ".join(f"{key}={value}" for key, value in given.items())
        return Plan(method, shown, seed, given, given["R"] if method == "hyperband" else given["num_iterations"])

    def search(self, job: Job, maker: Maker, grid: Grid) -> Study:
        """Train nets, and compare them."""
        from braidwater.model_selection import search

        scheduler: Rounds | None = None
        sampler, space = "random", cast(SpaceChoice, grid.suggest)
        if self.automl_method == "grid":
            configurations = [vars(one) for one in grid.all()]
            trials, sampler, space = len(configurations), "grid", {"configuration": configurations}
        elif self.automl_method == "hyperopt":
            trials, sampler = self.given["num_configs"], _SAMPLERS[self.given["algorithm"]]
        else:
            each = grid.only("epochs", FITTED["epochs"])
            scheduler = Rounds.of(self.given["R"], self.given["eta"], self.given["skip_last"], each=each)
            trials = sum(size for size, _ in scheduler.brackets(self.given["R"] * each))
        rows = job.rows
        return search(
            maker, space, rows, label=job.label, features=list(job.features), validation=job.held_out, budget=trials,
            sampler=sampler, scheduler=scheduler, keep=trials, seed=self.random_state, hopper=True,
            workers=max(min(job.workers, len(rows)), 1), engine=job.place.engine,
        )  # fmt: skip


def _configuration(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = parameters.get("configuration", parameters)
    return found
