"""The deep trainer: any torch module, trained where the table lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import torch

from braidwater.blocks import BlockSource
from braidwater.deep.building import (
    ModuleSpec,
    build_module,
    check_outputs,
    count_activations,
    count_flops,
    factory_path,
    import_factory,
    load_weights,
    parameter_bytes,
)
from braidwater.deep.inputs import FlatDesign, InputForm
from braidwater.deep.losses import Loss, LossFunction, Target, find_loss
from braidwater.deep.metrics import find_metrics
from braidwater.deep.optimizers import OptimizerChoice, OptimizerPlan
from braidwater.deep.prediction import AddPredictions, Predictor, prediction_fields
from braidwater.deep.schedules import Schedule, find_schedule
from braidwater.encoding import Encoding, FittedEncoding, Numeric
from braidwater.encoding.encoding import Features
from braidwater.engines import Engine, LocalEngine, default_engine
from braidwater.errors import EmptyTableError, LabelError, ModelSchemaError, OptionError, UnsupportedError
from braidwater.events import Planned, emit, running
from braidwater.metrics import ClassEvaluation, NumberEvaluation
from braidwater.parallel import Data, Strategy, Trained, Training, strategy_class
from braidwater.parallel.base import Precision
from braidwater.parallel.checkpoint import Checkpoints
from braidwater.planner import Plan, Work, plan_table
from braidwater.saving import load_model, save_model
from braidwater.tables import Table, table, train_test_split

KINDS = ("trainer", "mlp", "cnn")
GANG_MEMORY = 32 * 2**20  # blocks up to this size are handed to the members of a gang, larger ones lie in a file


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when the validation loss has not sunk by `min_improvement` for `patience` epochs; the best weights are kept."""

    patience: int = 3
    min_improvement: float = 0.0

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise OptionError("patience", self.patience, "at least 1 epoch")


class Trainer:
    """Trains a `torch.nn.Module` on the rows of a table, on one worker or several.

    `module` is a module (it stays as it is: `module_` is the trained copy), or a factory that is called with the inputs
    (width of the encoded features, or shape of the image that is the only feature) and the number of outputs (classes, or
    1) once the table is known: a class, a function, or an import path ``"package.module:Class"``; `module_arguments` are
    passed on.

    `batch_size` is the most rows of an optimiser step over all workers. Steps of an epoch are equally large within one row.
    `strategy` is ``"auto"`` (the planner's choice), a name, or a `Strategy`. Numeric features are standardised unless they
    come with encoders of their own. The same seed, workers and table give the same weights.

    With `checkpoint` (a folder) training goes on after a crash as if nothing had happened: on one worker the final weights
    are those of a run that was never interrupted, bit for bit.

    >>> import pyarrow as pa
    >>> from braidwater.deep.modules import MLP
    >>> rows = pa.table({"x": [0.0, 1.0, 2.0, 3.0] * 25, "late": [0, 0, 1, 1] * 25})
    >>> trainer = Trainer(MLP, learning_rate=0.05, epochs=10, batch_size=20, strategy="single").fit(rows, label="late")
    >>> trainer.evaluate(rows)["accuracy"]
    1.0
    """

    def __init__(
        self,
        module: ModuleSpec,
        *,
        module_arguments: Mapping[str, Any] | None = None,
        loss: str | LossFunction = "auto",
        label_kind: Target | None = None,
        optimizer: OptimizerChoice = "adamw",
        optimizer_arguments: Mapping[str, Any] | None = None,
        learning_rate: float = 1e-3,
        schedule: str | Schedule | None = None,
        strategy: str | Strategy = "auto",
        workers: int | None = None,
        epochs: int = 10,
        batch_size: int = 128,
        precision: Precision = "float32",
        accumulate: int = 1,
        clip_norm: float | None = None,
        early_stopping: EarlyStopping | int | None = None,
        freeze: Sequence[str] = (),
        groups: Mapping[str, float] | None = None,
        metrics: Sequence[str] = (),
        nulls: str | float = "refuse",
        standardise: bool = True,
        seed: int = 0,
        checkpoint: str | Path | None = None,
        checkpoint_every: int | Literal["epoch"] = "epoch",
        resume: bool = True,
        max_restarts: int = 0,
        kind: str = "trainer",
    ) -> None:
        self.module = module
        self.module_arguments = dict(module_arguments or {})
        self.loss = loss
        self.label_kind = label_kind
        self.optimizer = OptimizerPlan(
            optimizer, learning_rate, dict(optimizer_arguments or {}), tuple(freeze), dict(groups or {})
        )
        self.schedule = find_schedule(schedule)
        self.strategy = strategy
        self.workers = workers
        self.epochs = epochs
        self.batch_size = batch_size
        self.precision = precision
        self.accumulate = accumulate
        self.clip_norm = clip_norm
        self.early_stopping = EarlyStopping(early_stopping) if isinstance(early_stopping, int) else early_stopping
        self.metrics = tuple(metrics)
        self.nulls = nulls
        self.standardise = standardise
        self.seed = seed
        self.checkpoint = None if checkpoint is None else str(checkpoint)
        self.checkpoint_every = checkpoint_every
        self.resume = resume
        self.max_restarts = max_restarts
        self.kind = kind
        self.plan_: Plan | None = None
        self._check()

    def _check(self) -> None:
        for name, value in (("epochs", self.epochs), ("batch_size", self.batch_size), ("accumulate", self.accumulate)):
            if not isinstance(value, int) or value < 1:
                raise OptionError(name, value, "a whole number from 1 on")
        if self.precision not in ("float32", "bf16", "float64"):
            raise OptionError("precision", self.precision, "one of float32, bf16, float64")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise OptionError("clip_norm", self.clip_norm, "a norm above 0")
        if self.checkpoint_every != "epoch" and (
            not isinstance(self.checkpoint_every, int) or self.checkpoint_every < 1
        ):
            raise OptionError("checkpoint_every", self.checkpoint_every, "'epoch' or a number of steps from 1 on")
        if isinstance(self.strategy, str) and self.strategy != "auto":
            strategy_class(self.strategy)
        if self.kind not in KINDS:
            raise OptionError("kind", self.kind, f"one of {', '.join(KINDS)}")

    def fit(
        self,
        data: Any,
        *,
        label: str,
        features: Features = None,
        exclude: Sequence[str] = (),
        weight: str | None = None,
        validation: Any = None,
        engine: Engine | None = None,
    ) -> Self:
        """Train on a table, or on anything that `braidwater.table` takes.

        `validation` is another table, or the fraction of the rows to keep for it; the loss and the metrics of these rows
        are in `history_` after each epoch. `weight` names a column of row weights. Rows are read once from the table and
        then from its blocks.
        """
        rows = table(data)
        held_out = None
        if isinstance(validation, float):
            rows, held_out = train_test_split(rows, validation, seed=self.seed)
        elif validation is not None:
            held_out = table(validation)
        if not rows.statistics([]).rows:
            raise EmptyTableError(f"Table {rows.name!r} has no rows to train on.")
        with running(self.kind, rows=rows.statistics([]).rows, passes=self.epochs):
            self._fit(rows, held_out, self.encode(rows, label, features, exclude, weight), engine)
        return self

    def _fit(self, rows: Table, held_out: Table | None, encoding: FittedEncoding, engine: Engine | None) -> None:
        loss = self._loss(encoding)
        form = InputForm(encoding, self.precision)
        module = self._module(form, loss)
        strategy = self._strategy(rows, module, form)
        engine = engine or LocalEngine(strategy.workers)
        training = self._training(module, form, loss)
        if self.checkpoint is not None and not self.resume:
            Checkpoints(self.checkpoint, {}).clear()
        with ExitStack() as stack, nullcontext() if self.plan_ is None else self.plan_.measuring():
            data = self._data(rows, held_out, encoding, strategy, engine, stack)
            trained = strategy.train(training, data, engine)
        self._take(module, encoding, loss, strategy, trained)

    def encode(
        self, rows: Table, label: str, features: Features = None, exclude: Sequence[str] = (), weight: str | None = None
    ) -> FittedEncoding:
        """The encoding of the features and the label, fitted on `rows`."""
        rows.require([label])
        type_ = rows.schema.field(label).type
        number = pa.types.is_floating(type_) or pa.types.is_decimal(type_)
        declared = Encoding(
            features=features,
            exclude=exclude,
            label=label,
            label_kind=find_loss(self.loss, self.label_kind, number).target,
            weight=weight,
            nulls=self.nulls,
            coding="one_hot",
        )
        if self.standardise and not isinstance(features, Mapping):
            encoders = declared.encoders(rows)
            chosen = {n: _standardised(e) for n, e in encoders.items()}
            declared = Encoding(chosen, (), label, declared.label_kind, weight, None, self.nulls, "one_hot")
        return declared.fit(rows)

    def explain(
        self,
        data: Any,
        *,
        label: str,
        features: Features = None,
        exclude: Sequence[str] = (),
        weight: str | None = None,
    ) -> Plan:
        """What `fit` would do, and its cost. The table is looked at, nothing is trained."""
        rows = table(data)
        encoding = self.encode(rows, label, features, exclude, weight)
        return self._plan(rows, self.work(rows, encoding))

    def work(self, rows: Table, encoding: FittedEncoding) -> Work:
        """The training as the planner sees it: operations and bytes counted on one row."""
        form = InputForm(encoding, self.precision)
        module = self._module(form, self._loss(encoding))
        return self._work(module, form)

    def _work(self, module: torch.nn.Module, form: InputForm) -> Work:
        weights = parameter_bytes(module)
        return Work(
            name=self.kind,
            shape="gang",
            passes=self.epochs,
            flops_per_row=count_flops(module, form),
            row_bytes=form.encoding.block_schema.row_bytes,
            read_columns=tuple(form.encoding.columns),
            state_bytes=weights,
            exact=False,
            kernel="torch",
            step_rows=self.batch_size,
            # gradients and two moments; activations are held once for backward and once as its gradients
            working_bytes=3 * weights + 2 * self.batch_size * count_activations(module, form) // self.accumulate,
            strategies=("single", "all_reduce", "averaging"),
        )

    def predict(self, data: Any, *, engine: Engine | None = None) -> Table:
        """The table with a column ``prediction`` (and ``probability_<class>`` for each class), computed while it is read."""
        self._require_fitted()
        predictor = self._predictor(self.encoding_.for_prediction())
        rows = table(data)
        rows.require(predictor.form.encoding.columns)
        fields = prediction_fields(predictor.classes)
        taken = [field.name for field in fields if field.name in rows.column_names]
        if taken:
            raise UnsupportedError(f"Table {rows.name!r} has a column {taken[0]!r} already; rename it in a SELECT.")
        schema = pa.schema([*rows.schema, *fields])
        name = f"{rows.name} with prediction"
        return (engine or default_engine()).map_blocks(rows, AddPredictions(predictor, schema), schema, name=name)

    def evaluate(self, data: Any, *, label: str | None = None, engine: Engine | None = None) -> dict[str, Any]:
        """How good the predictions are: `accuracy`, `log_loss`, `roc_auc` (two classes), or `r2`, `rmse`, `mae`. One pass."""
        self._require_fitted()
        rows = table(data)
        encoding = self.encoding_.for_evaluation()
        if label is not None and (encoding.label is None or label != encoding.label.column):
            raise OptionError(
                "label", label, f"{encoding.label.column if encoding.label else None!r}, which was learnt"
            )
        if not rows.statistics([]).rows:
            raise EmptyTableError(f"Table {rows.name!r} has no rows to evaluate.")
        predictor = self._predictor(encoding)
        design: Any = FlatDesign(predictor.form)
        with BlockSource(rows, encoding) as source:
            engine = engine or default_engine()
            if self.classes_ is None:
                return engine.aggregate(source, NumberEvaluation(design, predictor))
            return engine.aggregate(source, ClassEvaluation(design, predictor, len(self.classes_)))

    def save(self, path: str | Path) -> Path:
        """Write the trained model into the folder `path` (safetensors and JSON); `Trainer.load` reads it back."""
        self._require_fitted()
        document = {
            "module": factory_path(self.module),
            "module_arguments": self.module_arguments,
            "target": self.target_,
            "settings": {name: getattr(self, name) for name in _PLAIN},
            "learning_rate": self.optimizer.learning_rate,
            "strategy": str(self.strategy_),
            "encoding": self.encoding_.to_json(),
            "history": self.history_,
            "plan": None if self.plan_ is None else str(self.plan_),
        }
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in self.module_.state_dict().items()}
        return save_model(path, self.kind, document, arrays)

    @classmethod
    def load(cls, path: str | Path, *, module: ModuleSpec | None = None, trust: Sequence[str] = ()) -> Self:
        """The model that `save` wrote. It predicts and evaluates; `fit` would train it anew.

        `module` is the module (or its factory) where the model's own cannot be imported. Modules of packages other than
        braidwater are imported only from the packages named in `trust`.
        """
        saved = load_model(path, KINDS)
        document = saved.document
        spec = module or document["module"]
        if spec is None:
            raise ModelSchemaError(
                f"The model in {str(path)!r} was trained from a module that has no import path. Give it: load(path, module=...)."
            )
        factory = import_factory(spec, trust) if isinstance(spec, str) and module is None else spec
        settings = {**document["settings"], "learning_rate": document["learning_rate"], "kind": saved.kind}
        trainer = cls(factory, module_arguments=document["module_arguments"], label_kind=document["target"], **settings)
        trainer.encoding_ = FittedEncoding.from_json(document["encoding"])
        trainer.target_ = document["target"]
        trainer.history_ = document["history"]
        trainer.strategy_ = document["strategy"]
        outputs = len(trainer.classes_) if trainer.classes_ is not None else 1
        form = InputForm(trainer.encoding_, trainer.precision)
        made = build_module(factory, trainer.module_arguments, form, outputs, trainer.seed)
        trainer.module_ = made.to(torch.float64 if trainer.precision == "float64" else torch.float32)
        load_weights(trainer.module_, {name: torch.from_numpy(np.array(a)) for name, a in saved.arrays.items()})
        return trainer

    @property
    def classes_(self) -> list[Any] | None:
        """The classes of the label in the order of the module's outputs; None where the label is a number."""
        return self.encoding_.classes

    def _loss(self, encoding: FittedEncoding) -> Loss:
        number = encoding.classes is None
        return find_loss(self.loss, self.label_kind, number)

    def _module(self, form: InputForm, loss: Loss) -> torch.nn.Module:
        classes = form.encoding.classes
        if classes is not None and len(classes) < 2:
            raise LabelError(f"The label has one class only, {classes[0]!r}: there is nothing to tell apart.")
        outputs = 1 if classes is None else len(classes)
        module = build_module(self.module, self.module_arguments, form, outputs, self.seed)
        check_outputs(module, form, loss.target, outputs)
        return module

    def _strategy(self, rows: Table, module: torch.nn.Module, form: InputForm) -> Strategy:
        work = self._work(module, form)
        if isinstance(self.strategy, Strategy) and self.strategy.name not in work.strategies:
            self.plan_ = None  # a strategy from elsewhere: nobody knows its cost
            return self.strategy
        self.plan_ = self._plan(rows, work)
        emit(Planned(text=str(self.plan_)))
        if isinstance(self.strategy, Strategy):
            return self.strategy
        chosen = self.plan_.chosen
        found = strategy_class(chosen.strategy)
        return found() if chosen.strategy == "single" else found(workers=chosen.workers)  # type: ignore[call-arg]

    def _plan(self, rows: Table, work: Work) -> Plan:
        strategy = self.strategy if isinstance(self.strategy, str) else self.strategy.name
        workers = self.workers if isinstance(self.strategy, str) else self.strategy.workers
        return plan_table(rows, work, strategy=strategy, workers=workers)

    def _training(self, module: torch.nn.Module, form: InputForm, loss: Loss) -> Training:
        classes = form.encoding.classes
        stopping = self.early_stopping
        return Training(
            module=module,
            loss=loss.function,
            optimizer=self.optimizer,
            form=form.rows,
            input_scale=form.scale if form.image is not None else 1.0,
            target=loss.target,
            schedule=self.schedule,
            epochs=self.epochs,
            batch_size=self.batch_size,
            accumulate=self.accumulate,
            clip_norm=self.clip_norm,
            precision=self.precision,
            seed=self.seed,
            metrics=find_metrics(self.metrics, loss.target, len(classes or [])),
            patience=None if stopping is None else stopping.patience,
            min_improvement=0.0 if stopping is None else stopping.min_improvement,
            checkpoint=self.checkpoint,
            checkpoint_every=self.checkpoint_every,
            max_restarts=self.max_restarts,
        )

    def _data(
        self,
        rows: Table,
        held_out: Table | None,
        encoding: FittedEncoding,
        strategy: Strategy,
        engine: Engine,
        stack: ExitStack,
    ) -> Data:
        """The blocks of both tables, made in one pass each."""

        def blocks(of: Table, encoder: FittedEncoding) -> BlockSource:
            source = BlockSource(of, encoder, passes=self.epochs + 1)
            if strategy.workers > 1 and source.expected_bytes > GANG_MEMORY:
                source.close()
                source = BlockSource(of, encoder, passes=self.epochs + 1, cache="disk")
            stack.enter_context(source)
            engine.materialise(source)
            return source

        source = blocks(rows, encoding)
        assert source.store is not None
        if held_out is None:
            return Data(source.store, source=source)
        checked = encoding.for_evaluation()
        validation = blocks(held_out, checked)
        return Data(source.store, validation.store, InputForm(checked, self.precision).rows, source)

    def _take(
        self, module: torch.nn.Module, encoding: FittedEncoding, loss: Loss, strategy: Strategy, trained: Trained
    ) -> None:
        self.module_ = module.to(torch.float64 if self.precision == "float64" else torch.float32)
        self.module_.load_state_dict(trained.weights)
        self.module_.eval()
        self.encoding_ = encoding
        self.target_: Target = loss.target
        self.strategy_: Strategy | str = strategy
        self.history_ = trained.history
        self.steps_ = trained.steps
        self.best_epoch_ = trained.best_epoch

    def _predictor(self, encoding: FittedEncoding) -> Predictor:
        self.module_.eval()
        return Predictor(self.module_, InputForm(encoding, self.precision), self.classes_)

    def _require_fitted(self) -> None:
        if not hasattr(self, "module_"):
            raise UnsupportedError(
                "This trainer has not been fitted. Call fit(table, label=...) or Trainer.load(path) first."
            )


_PLAIN = ("epochs", "batch_size", "precision", "accumulate", "clip_norm", "nulls", "standardise", "seed")


def _standardised(encoder: Any) -> Any:
    """A plain number is centred and scaled; what is declared otherwise stays as it is."""
    return replace(encoder, standardise=True) if isinstance(encoder, Numeric) else encoder
