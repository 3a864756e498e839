"""torch_fit_multiple_model: many nets at once, which hop from worker to worker over the rows where they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlglot import exp

from braidwater.errors import OptionError
from braidwater.sql.functions.torch_jobs import FIGURES, FITTED, SUMMARY, Job, Telling, about, make_trainer, now, write
from braidwater.sql.functions.torch_models import MODEL, architecture, before_of, parse_keywords, stored
from braidwater.sql.names import Name, match_columns
from braidwater.sql.place import Place
from braidwater.sql.registry import Columns, Output, Source, function

SELECTION = {"mst_key": "integer", "model_id": "integer", "compile_params": "text", "fit_params": "text"}
KEY = {"mst_key": "integer"}


@function()
def torch_fit_multiple_model(
    place: Place,
    source_table: Source,
    model_output_table: Output,
    model_selection_table: Source,
    model_arch_table: Source,
    dependent_varname: Columns,
    independent_varname: Columns,
    num_iterations: int,
    use_gpus: bool = False,
    validation_table: Source | None = None,
    metrics_compute_frequency: int | None = None,
    warm_start: bool = False,
    name: str | None = None,
    description: str | None = None,
) -> None:
    """Train a net for each row of a table, all at once: they hop from worker to worker, each of which holds a part of the rows.

    source_table: the table of the rows.
    model_output_table: the table to write the models into, by mst_key; OUT_info and OUT_summary are written beside it.
    model_selection_table: a table with the columns mst_key, model_id, compile_params and fit_params.
    model_arch_table: the table of architectures, see load_torch_model.
    dependent_varname: the column to learn: classes, or numbers.
    independent_varname: the columns to learn it from, by commas; or one column of arrays.
    num_iterations: how often each net sees all rows (times the epochs of its fit_params).
    use_gpus: whether to train on GPUs where there are any.
    validation_table: rows to compute loss and metrics of.
    metrics_compute_frequency: after how many iterations figures are told; at the end only where it is NULL.
    warm_start: whether models go on from what model_output_table has for their mst_key, weights and optimizer; it is replaced.
    name: a name of your own.
    description: a text of your own.
    """
    job = Job.of(place, source_table, dependent_varname, independent_varname, validation_table)
    telling = Telling.of(num_iterations, metrics_compute_frequency)
    summary, info = model_output_table.suffixed("_summary"), model_output_table.suffixed("_info")
    if not warm_start:
        place.refuse_existing(model_output_table, summary, info)
    match_columns(
        "model_selection_table", tuple(SELECTION), place.schema(model_selection_table).names, model_selection_table.text
    )
    chosen = exp.select(*SELECTION).from_(model_selection_table.table).order_by("mst_key")
    trials = place.select(chosen).to_pylist()
    if not trials:
        raise OptionError("model_selection_table", model_selection_table.text, "a table with a row for each model")
    known = _keys(place, model_output_table) if warm_start else []
    begun = now()
    nets = {one: architecture(place, model_arch_table, one) for one in {trial["model_id"] for trial in trials}}
    trainers = []
    for trial in trials:
        key = trial["mst_key"]
        before = before_of(place, model_output_table, key) if key in known else None
        texts = trial["compile_params"], trial["fit_params"]
        trainers.append(make_trainer(nets[trial["model_id"]], *texts, num_iterations, gpus=use_gpus, before=before))
    models, told = [], []
    for trial, found in zip(trials, job.hopped(trainers), strict=True):
        told.append(trial | telling.figures(found.trainer, epochs_of(trial)))
        net = nets[trial["model_id"]]
        models.append({"mst_key": trial["mst_key"]} | stored(found.trainer, net, found.optimizer))
    record = about(job, telling, model_output_table, name, description, warm_start=warm_start, begun=begun)
    record |= {"model_arch_table": model_arch_table.text, "class_values": None}
    write(place, model_output_table, KEY | MODEL, models, drop=warm_start)
    write(place, info, KEY | FIGURES, told, drop=warm_start)
    write(place, summary, SUMMARY, [record], drop=warm_start)


def epochs_of(trial: Mapping[str, Any]) -> int:
    """How many epochs an iteration of a configuration has."""
    return int(parse_keywords("fit_params", trial["fit_params"], FITTED)["epochs"])


def _keys(place: Place, table: Name) -> Sequence[int]:
    place.schema(table)
    found: list[int] = place.select(exp.select("mst_key").from_(table.table)).column("mst_key").to_pylist()
    return found
