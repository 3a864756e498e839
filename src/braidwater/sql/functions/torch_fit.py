"""torch_fit and torch_fit_multiple_model: nets trained where the rows lie, by averaging once an iteration."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from braidwater.errors import OptionError
from braidwater.options import current_options
from braidwater.sql.functions.torch_models import MODEL, Architecture, architecture, parse_keywords, restored, stored
from braidwater.sql.names import Name, match_columns
from braidwater.sql.place import Place
from braidwater.sql.registry import Columns, Output, Source, function

if TYPE_CHECKING:
    import torch

    from braidwater.deep import Trainer

_LOSSES = {
    "categorical_crossentropy": "cross_entropy", "sparse_categorical_crossentropy": "cross_entropy",
    "binary_crossentropy": "cross_entropy", "mean_squared_error": "mse", "mean_absolute_error": "l1", "mae": "l1",
}  # fmt: skip
FIGURES = {
    "model_id": "integer", "compile_params": "text", "fit_params": "text", "model_size": "float8",
    "metrics_elapsed_time": "float8[]", "metrics_type": "text[]", "loss_type": "text", "metrics_iters": "integer[]",
    "training_loss_final": "float8", "training_loss": "float8[]", "validation_loss_final": "float8",
    "validation_loss": "float8[]", "validation_metrics_final": "float8", "validation_metrics": "float8[]",
}  # fmt: skip
SUMMARY = {
    "source_table": "text", "model": "text", "dependent_varname": "text", "independent_varname": "text",
    "model_arch_table": "text", "num_iterations": "integer", "validation_table": "text",
    "metrics_compute_frequency": "integer", "warm_start": "boolean", "name": "text", "description": "text",
    "start_training_time": "text", "end_training_time": "text", "class_values": "text[]",
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """What all models of a call have in common."""

    place: Place
    source: Name
    label: str
    features: tuple[str, ...]
    iterations: int
    gpus: bool
    validation: Name | None
    frequency: int

    def train(self, net: Architecture, compile_params: str, fit_params: str, before: Trainer | None) -> Trainer:
        """A trainer, fitted; it starts from the weights of the one `before`."""
        from braidwater.deep import Trainer
        from braidwater.parallel import Averaging

        engine = self.place.engine
        asked = parse_keywords("compile_params", compile_params, {"loss": "auto", "optimizer": "adam", "metrics": []})
        fitting = parse_keywords("fit_params", fit_params, {"batch_size": 128, "epochs": 1, "seed": 0})
        optimizer, arguments = _optimizer(asked["optimizer"])
        factory = net.factory()

        def module(inputs: Any, outputs: int, **given: Any) -> torch.nn.Module:
            made = factory(inputs, outputs, **given)
            if before is not None:
                made.load_state_dict(before.module_.state_dict())
            return made

        trainer = Trainer(
            module,
            module_arguments=net.arguments,
            loss=_LOSSES.get(asked["loss"], asked["loss"]),
            optimizer=optimizer,
            learning_rate=arguments.pop("learning_rate", 1e-3),
            optimizer_arguments=arguments,
            metrics=asked["metrics"],
            batch_size=fitting["batch_size"],
            epochs=self.iterations * fitting["epochs"],
            seed=fitting["seed"],
            strategy=Averaging(workers=current_options().workers if engine is None else engine.workers),
            device="auto" if self.gpus else "cpu",
        )
        held_out = None if self.validation is None else self._rows(self.validation)
        return trainer.fit(
            self._rows(self.source), label=self.label, features=list(self.features), validation=held_out, engine=engine
        )

    def _rows(self, name: Name) -> Any:
        return self.place.table(exp.select("*").from_(name.table), name.text)

    def figures(self, trainer: Trainer, seconds: float) -> dict[str, Any]:
        """What is told of a trained model: the figures after every `frequency` iterations, and after the last."""
        each = len(trainer.history_) // self.iterations
        told = [n for n in range(1, self.iterations + 1) if n % self.frequency == 0 or n == self.iterations]
        rows = [trainer.history_[n * each - 1] for n in told]
        metric = next(iter(trainer.metrics), None)
        elapsed = [sum(one["seconds"] for one in trainer.history_[: n * each]) for n in told]
        held = self.validation is not None
        weights = sum(tensor.nbytes for tensor in trainer.module_.state_dict().values())
        found: dict[str, Any] = {
            "model_size": weights / 1024, "metrics_elapsed_time": elapsed, "metrics_iters": told,
            "metrics_type": list(trainer.metrics), "loss_type": str(trainer.loss),
            "training_loss": [one["loss"] for one in rows], "training_loss_final": rows[-1]["loss"],
        }  # fmt: skip
        if held:
            found["validation_loss"] = [one["validation_loss"] for one in rows]
            found["validation_loss_final"] = rows[-1]["validation_loss"]
        if held and metric is not None:
            found["validation_metrics"] = [one[f"validation_{metric}"] for one in rows]
            found["validation_metrics_final"] = rows[-1][f"validation_{metric}"]
        return found


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
    warm_start: whether to start from the weights that the table model has; it is replaced.
    name: a name of your own.
    description: a text of your own.
    """
    job = _job(
        place, source_table, dependent_varname, independent_varname, num_iterations, use_gpus, validation_table,
        metrics_compute_frequency,
    )  # fmt: skip
    summary = model.suffixed("_summary")
    before = restored(place, model) if warm_start else None
    if not warm_start:
        place.refuse_existing(model, summary)
    begun, clock = _now(), time.perf_counter()
    net = architecture(place, model_arch_table, model_id)
    trainer = job.train(net, compile_params, fit_params, before)
    figures = job.figures(trainer, time.perf_counter() - clock)
    about = _about(job, model, name, description, warm_start=warm_start, begun=begun) | figures
    about |= {
        "model_arch_table": model_arch_table.text, "model_id": model_id, "compile_params": compile_params,
        "fit_params": fit_params, "class_values": None if trainer.classes_ is None else list(map(str, trainer.classes_)),
    }  # fmt: skip
    _replace(place, model, MODEL, [stored(trainer, net)], drop=warm_start)
    _replace(place, summary, SUMMARY | FIGURES, [about], drop=warm_start)


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
    """Train a net for each row of a table, one after the other, each on all workers.

    source_table: the table of the rows.
    model_output_table: the table to write the models into, by mst_key; OUT_info and OUT_summary are written beside it.
    model_selection_table: a table with the columns mst_key, model_id, compile_params and fit_params.
    model_arch_table: the table of architectures, see load_torch_model.
    dependent_varname: the column to learn: classes, or numbers.
    independent_varname: the columns to learn it from, by commas; or one column of arrays.
    num_iterations: how often weights are averaged and figures told.
    use_gpus: whether to train on GPUs where there are any.
    validation_table: rows to compute loss and metrics of.
    metrics_compute_frequency: after how many iterations figures are told; at the end only where it is NULL.
    warm_start: whether models start from the weights that model_output_table has for their mst_key; it is replaced.
    name: a name of your own.
    description: a text of your own.
    """
    job = _job(
        place, source_table, dependent_varname, independent_varname, num_iterations, use_gpus, validation_table,
        metrics_compute_frequency,
    )  # fmt: skip
    summary, info = model_output_table.suffixed("_summary"), model_output_table.suffixed("_info")
    if not warm_start:
        place.refuse_existing(model_output_table, summary, info)
    wanted = ("mst_key", "model_id", "compile_params", "fit_params")
    match_columns(
        "model_selection_table", wanted, place.schema(model_selection_table).names, model_selection_table.text
    )
    trials = place.select(exp.select(*wanted).from_(model_selection_table.table).order_by("mst_key")).to_pylist()
    if not trials:
        raise OptionError("model_selection_table", model_selection_table.text, "a table with a row for each model")
    known = _keys(place, model_output_table) if warm_start else []
    begun = _now()
    models, told = [], []
    for trial in trials:
        net = architecture(place, model_arch_table, trial["model_id"])
        key, clock = trial["mst_key"], time.perf_counter()
        before = restored(place, model_output_table, key) if key in known else None
        trainer = job.train(net, trial["compile_params"], trial["fit_params"], before)
        told.append(trial | job.figures(trainer, time.perf_counter() - clock))
        models.append({"mst_key": key} | stored(trainer, net))
    key_column = {"mst_key": "integer"}
    about = _about(job, model_output_table, name, description, warm_start=warm_start, begun=begun)
    about |= {"model_arch_table": model_arch_table.text, "class_values": None}
    _replace(place, model_output_table, key_column | MODEL, models, drop=warm_start)
    _replace(place, info, key_column | FIGURES, told, drop=warm_start)
    _replace(place, summary, SUMMARY, [about], drop=warm_start)


def _job(
    place: Place,
    source: Name,
    labels: Columns,
    features: Columns,
    iterations: int,
    gpus: bool,
    validation: Name | None,
    frequency: int | None,
) -> Job:
    names = place.schema(source).names
    label = match_columns("dependent_varname", labels or (), names, source.text)
    if len(label) != 1:
        raise OptionError("dependent_varname", labels, "one column")
    if iterations < 1:
        raise OptionError("num_iterations", iterations, "at least 1")
    if frequency is not None and not 1 <= frequency <= iterations:
        raise OptionError("metrics_compute_frequency", frequency, f"from 1 to {iterations}, the number of iterations")
    found = match_columns("independent_varname", features or (), names, source.text)
    return Job(place, source, label[0], found, iterations, gpus, validation, frequency or iterations)


def _about(
    job: Job, model: Name, name: str | None, description: str | None, *, warm_start: bool, begun: str
) -> dict[str, Any]:
    return {
        "source_table": job.source.text, "model": model.text, "dependent_varname": job.label,
        "independent_varname": ", ".join(job.features), "num_iterations": job.iterations,
        "validation_table": None if job.validation is None else job.validation.text,
        "metrics_compute_frequency": job.frequency, "warm_start": warm_start, "name": name, "description": description,
        "start_training_time": begun, "end_training_time": _now(),
    }  # fmt: skip


def _optimizer(text: str) -> tuple[str, dict[str, Any]]:
    """The optimizer of ``'Adam(lr=0.01)'``, and its arguments."""
    name, _, rest = text.strip().rstrip(")").partition("(")
    given = parse_keywords("optimizer", rest, dict.fromkeys(_ARGUMENTS)) if rest else {}
    arguments = {_ARGUMENTS[key]: value for key, value in given.items() if value is not None}
    return name.strip().lower(), arguments


_ARGUMENTS = {
    "lr": "learning_rate", "learning_rate": "learning_rate", "momentum": "momentum", "nesterov": "nesterov",
    "weight_decay": "weight_decay", "eps": "eps", "epsilon": "eps", "alpha": "alpha", "rho": "alpha",
}  # fmt: skip


def _replace(place: Place, name: Name, columns: Mapping[str, str], rows: list[dict[str, Any]], *, drop: bool) -> None:
    if drop:
        place.run(exp.Drop(tables=[name.table], kind="TABLE", exists=True))
    place.create(name, dict(columns), rows)


def _keys(place: Place, table: Name) -> list[int]:
    place.schema(table)
    return list(place.select(exp.select("mst_key").from_(table.table)).column("mst_key").to_pylist())


def _now() -> str:
    return datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
