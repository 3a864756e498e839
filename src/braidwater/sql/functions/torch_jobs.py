"""What models of one SQL call have in common: their rows, how one is trained, and what is told of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from braidwater.errors import DataError, OptionError
from braidwater.options import current_options
from braidwater.sql.functions.torch_models import Architecture, Before, parse_keywords
from braidwater.sql.names import Name, match_columns
from braidwater.sql.place import Place
from braidwater.sql.registry import Columns

if TYPE_CHECKING:
    from braidwater.deep import Trainer

COMPILED: dict[str, Any] = {"loss": "auto", "optimizer": "adam", "metrics": []}
FITTED: dict[str, Any] = {"batch_size": 128, "epochs": 1, "seed": 0}
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
class Trained:
    """A fitted trainer, and the state of its optimizer."""

    trainer: Trainer
    optimizer: bytes


@dataclass(frozen=True)
class Job:
    """What all models of a call have in common."""

    place: Place
    source: Name
    label: str
    features: tuple[str, ...]
    validation: Name | None

    @staticmethod
    def of(place: Place, source: Name, labels: Columns, features: Columns, validation: Name | None) -> Job:
        names = place.schema(source).names
        label = match_columns("dependent_varname", labels or (), names, source.text)
        if len(label) != 1:
            raise OptionError("dependent_varname", labels, "one column")
        chosen = match_columns("independent_varname", features or (), names, source.text)
        return Job(place, source, label[0], chosen, validation)

    @property
    def workers(self) -> int:
        engine = self.place.engine
        return current_options().workers if engine is None else engine.workers

    def averaged(self, trainer: Trainer) -> Trained:
        """One trainer, fitted by all workers: each on its share, weights averaged once an epoch."""
        from braidwater.deep.warm_start import state_in
        from braidwater.parallel import Averaging

        trainer.strategy = Averaging(workers=self.workers)
        with TemporaryDirectory(prefix="braidwater-fit-") as folder:
            trainer.checkpoint = folder
            trainer.fit(
                self.rows, label=self.label, features=list(self.features), validation=self.held_out,
                engine=self.place.engine,
            )  # fmt: skip
            return _trained(trainer, trainer, state_in(folder))

    def hopped(self, trainers: Sequence[Trainer]) -> list[Trained]:
        """Trainers, fitted side by side: each hops from worker to worker, and so sees all rows."""
        from braidwater.deep.warm_start import state_in
        from braidwater.model_selection import hop
        from braidwater.model_selection.study import trial_folder

        rows = self.rows
        with TemporaryDirectory(prefix="braidwater-fit-") as folder:
            found = hop(
                trainers, rows, label=self.label, features=list(self.features), validation=self.held_out,
                workers=max(min(self.workers, len(rows)), 1), checkpoint=folder, engine=self.place.engine,
            )  # fmt: skip
            for number, error in found.errors.items():
                raise DataError(f"Model {number + 1} of {len(trainers)}: {error.splitlines()[0]}")
            folders = [trial_folder(Path(folder), number) / "checkpoint" for number in range(len(trainers))]
            return [_trained(*one) for one in zip(found.models, trainers, map(state_in, folders), strict=True)]

    @property
    def rows(self) -> Any:
        return self._rows(self.source)

    @property
    def held_out(self) -> Any:
        return None if self.validation is None else self._rows(self.validation)

    def _rows(self, name: Name) -> Any:
        return self.place.table(exp.select("*").from_(name.table), name.text)


def _trained(fitted: Trainer, asked: Trainer, state: Any) -> Trained:
    from braidwater.deep.warm_start import WarmOptimizer, to_bytes

    choice = asked.optimizer.optimizer
    name = choice.name if isinstance(choice, WarmOptimizer) else str(choice)
    fitted.optimizer = replace(asked.optimizer, optimizer=name)
    return Trained(fitted, to_bytes(name, state))


@dataclass(frozen=True)
class WarmModule:
    """Makes the module of an architecture, with weights of an earlier training."""

    net: Architecture
    weights: Mapping[str, Any]

    def __call__(self, inputs: Any, outputs: int, **arguments: Any) -> Any:
        made = self.net.factory()(inputs, outputs, **arguments)
        made.load_state_dict(self.weights)
        return made


def make_trainer(
    net: Architecture,
    compile_params: str,
    fit_params: str,
    iterations: int,
    *,
    gpus: bool = False,
    before: Before | None = None,
) -> Trainer:
    """A trainer, not fitted; it starts from the weights and the optimizer of the model `before`."""
    from braidwater.deep import Trainer
    from braidwater.deep.warm_start import WarmOptimizer

    asked = parse_keywords("compile_params", compile_params, COMPILED)
    fitting = parse_keywords("fit_params", fit_params, FITTED)
    name, arguments = _optimizer(asked["optimizer"])
    known = None if before is None else before.optimizer
    return Trainer(
        net.factory() if before is None else WarmModule(net, before.weights),
        module_arguments=net.arguments,
        loss=_LOSSES.get(asked["loss"], asked["loss"]),
        optimizer=WarmOptimizer(name, known.state) if known is not None and known.name == name else name,
        learning_rate=arguments.pop("learning_rate", 1e-3),
        optimizer_arguments=arguments,
        metrics=asked["metrics"],
        batch_size=fitting["batch_size"],
        epochs=iterations * fitting["epochs"],
        seed=fitting["seed"],
        device="auto" if gpus else "cpu",
    )


@dataclass(frozen=True)
class Telling:
    """After which iterations figures are told."""

    iterations: int
    frequency: int

    @staticmethod
    def of(iterations: int, frequency: int | None) -> Telling:
        if iterations < 1:
            raise OptionError("num_iterations", iterations, "at least 1")
        if frequency is not None and not 1 <= frequency <= iterations:
            raise OptionError(
                "metrics_compute_frequency", frequency, f"from 1 to {iterations}, the number of iterations"
            )
        return Telling(iterations, frequency or iterations)

    def figures(self, trainer: Trainer, each: int) -> dict[str, Any]:
        """What is told of a trained model, `each` iteration of which is so many epochs; one that was stopped has fewer."""
        last = len(trainer.history_) // each
        told = [n for n in range(1, last + 1) if n % self.frequency == 0 or n == last]
        rows = [trainer.history_[n * each - 1] for n in told]
        metric = next(iter(trainer.metrics), None)
        elapsed = [sum(one["seconds"] for one in trainer.history_[: n * each]) for n in told]
        weights = sum(tensor.nbytes for tensor in trainer.module_.state_dict().values())
        found: dict[str, Any] = {
            "model_size": weights / 1024, "metrics_elapsed_time": elapsed, "metrics_iters": told,
            "metrics_type": list(trainer.metrics), "loss_type": str(trainer.loss),
            "training_loss": [one["loss"] for one in rows], "training_loss_final": rows[-1]["loss"],
        }  # fmt: skip
        for name, source in (("validation_loss", "validation_loss"), ("validation_metrics", f"validation_{metric}")):
            if source in rows[-1]:
                found |= {name: [one[source] for one in rows], f"{name}_final": rows[-1][source]}
        return found


def about(
    job: Job, telling: Telling, model: Name, name: str | None, description: str | None, *, warm_start: bool, begun: str
) -> dict[str, Any]:
    """What is told of a call, whatever it trained."""
    return {
        "source_table": job.source.text, "model": model.text, "dependent_varname": job.label,
        "independent_varname": ", ".join(job.features), "num_iterations": telling.iterations,
        "validation_table": None if job.validation is None else job.validation.text,
        "metrics_compute_frequency": telling.frequency, "warm_start": warm_start, "name": name, "description": description,
        "start_training_time": begun, "end_training_time": now(),
    }  # fmt: skip


def write(place: Place, name: Name, columns: Mapping[str, str], rows: list[dict[str, Any]], *, drop: bool) -> None:
    """Make a table of rows, in the place of one that is there if `drop`."""
    if drop:
        place.run(exp.Drop(tables=[name.table], kind="TABLE", exists=True))
    place.create(name, dict(columns), rows)


def now() -> str:
    """The time, for a summary."""
    return datetime.now(UTC).isoformat(sep=" ", timespec="seconds")


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
