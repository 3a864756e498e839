"""torch_fit: a net trained where the rows lie, by averaging once an iteration."""

from __future__ import annotations

from braidwater.sql.functions.torch_jobs import FIGURES, FITTED, SUMMARY, Job, Telling, about, make_trainer, now, write
from braidwater.sql.functions.torch_models import MODEL, architecture, before_of, parse_keywords, stored
from braidwater.sql.place import Place
from braidwater.sql.registry import Columns, Output, Source, function


@function()
def torch_fit(
    place: Place,
    source_table: Source,
    model: Output,
    model_arch_table: Source,
    model_id: int,
    dependent_varname: Columns,
    independent_varname: Columns,
    compile_params: str,
    fit_params: str,
    num_iterations: int,
    use_gpus: bool = False,
    validation_table: Source | None = None,
    metrics_compute_frequency: int | None = None,
    warm_start: bool = False,
    name: str | None = None,
    description: str | None = None,
) -> None:
    """Train a torch net where the rows lie: each worker on its share, weights averaged once an epoch.

    source_table: the table of the rows; they need not be packed.
    model: the table to write the model into; OUT_summary is written beside it.
    model_arch_table: the table of architectures, see load_torch_model.
    model_id: the number of the net in it.
    dependent_varname: the column to learn: classes, or numbers.
    independent_varname: the columns to learn it from, by commas; or one column of arrays.
    compile_params: such as "loss='cross_entropy', optimizer='adam(lr=0.01)', metrics=['accuracy']".
    fit_params: such as "batch_size=64, epochs=1"; epochs are those of an iteration.
    num_iterations: how often weights are averaged and figures told.
    use_gpus: whether to train on GPUs where there are any, a worker on each.
    validation_table: rows to compute loss and metrics of.
    metrics_compute_frequency: after how many iterations figures are told; at the end only where it is NULL.
    warm_start: whether to go on from the weights and the optimizer that the table model has; it is replaced.
    name: a name of your own.
    description: a text of your own.
    """
    job = Job.of(place, source_table, dependent_varname, independent_varname, validation_table)
    telling = Telling.of(num_iterations, metrics_compute_frequency)
    summary = model.suffixed("_summary")
    before = before_of(place, model) if warm_start else None
    if not warm_start:
        place.refuse_existing(model, summary)
    begun = now()
    net = architecture(place, model_arch_table, model_id)
    trainer = make_trainer(net, compile_params, fit_params, num_iterations, gpus=use_gpus, before=before)
    trained = job.averaged(trainer)
    classes = trained.trainer.classes_
    told = about(job, telling, model, name, description, warm_start=warm_start, begun=begun)
    told |= telling.figures(trained.trainer, parse_keywords("fit_params", fit_params, FITTED)["epochs"])
    told |= {
        "model_arch_table": model_arch_table.text, "model_id": model_id, "compile_params": compile_params,
        "fit_params": fit_params, "class_values": None if classes is None else list(map(str, classes)),
    }  # fmt: skip
    write(place, model, MODEL, [stored(trained.trainer, net, trained.optimizer)], drop=warm_start)
    write(place, summary, SUMMARY | FIGURES, [told], drop=warm_start)
