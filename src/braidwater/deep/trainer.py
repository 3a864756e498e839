"""The deep trainer: any torch module, trained where the table lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch

from braidwater.blocks import BlockSource
from braidwater.deep.building import ModuleSpec, build_module, factory_path, import_factory, load_weights
from braidwater.deep.inputs import FlatDesign, InputForm
from braidwater.deep.losses import Loss, Target
from braidwater.deep.planning import chosen_strategy, describe_work, make_plan, notes_on
from braidwater.deep.prediction import AddPredictions, Predictor, prediction_fields
from braidwater.deep.rows import fit_encoding, make_data
from braidwater.deep.settings import KINDS, EarlyStopping, Settings
from braidwater.encoding import FittedEncoding
from braidwater.encoding.encoding import Features
from braidwater.engines import Engine, LocalEngine, default_engine
from braidwater.errors import EmptyTableError, ModelSchemaError, OptionError, UnsupportedError
from braidwater.events import Planned, emit, running
from braidwater.metrics import ClassEvaluation, NumberEvaluation
from braidwater.parallel import Strategy, Trained, Training
from braidwater.parallel.checkpoint import Checkpoints
from braidwater.parallel.mixed_precision import weights_dtype
from braidwater.parallel.rollback import train_guarded
from braidwater.planner import Plan, Work
from braidwater.saving import load_model, save_model
from braidwater.tables import Table, table, train_test_split

__all__ = ["EarlyStopping", "Trainer"]


class Trainer(Settings):
    """Trains a `torch.nn.Module` on the rows of a table, on one worker or several.

    `module` is a module (it stays as it is: `module_` is the trained copy), or a factory that is called with the inputs
    (width of the encoded features, or shape of the image that is the only feature) and the number of outputs (classes, or
    1) once the table is known: a class, a function, or an import path ``"package.module:Class"``; `module_arguments` are
    passed on.

    `batch_size` is the most rows of an optimiser step over all workers. Steps of an epoch are equally large within one row.
    `strategy` is ``"auto"`` (the planner's choice), a name, or a `Strategy`. Numeric features are standardised unless they
    come with encoders of their own. The same seed, workers and table give the same weights.

    Rows are shuffled within windows of about 64 thousand in every epoch; `shuffle` puts all of them in a random order once,
    before the first, for tables that were written in the order of the label.

    `precision` is ``"float32"``, ``"float64"``, or mixed: ``"bf16"``, ``"fp16"`` (with a loss scale that follows the gradients).
    `augment` changes training images at random (`Flip`, `Crop`, `Erase`, or an `Augmentation` of your own) on the workers.
    `recompute` saves the memory of activations: True, or patterns of names of layers that are computed again on the way back.
    A worker that keeps the others waiting for `timeout` seconds is an error that names it. With `max_rollbacks` a loss
    that is not finite sends training back to its last checkpoint at half the learning rate.

    With `checkpoint` (a folder) training goes on after a crash as if nothing had happened: on one worker the final weights
    are those of a run that was never interrupted, bit for bit.

    >>> import pyarrow as pa
    >>> from braidwater.deep.modules import MLP
    >>> rows = pa.table({"x": [0.0, 1.0, 2.0, 3.0] * 25, "late": [0, 0, 1, 1] * 25})
    >>> trainer = Trainer(MLP, learning_rate=0.05, epochs=10, batch_size=20, strategy="single").fit(rows, label="late")
    >>> trainer.evaluate(rows)["accuracy"]
    1.0
    """

    plan_: Plan | None = None

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
        schema = {field.name: str(field.type) for field in rows.schema}
        self.trained_on_ = {"table": rows.name, "rows": rows.statistics([]).rows, "schema": schema}
        with running(self.kind, rows=rows.statistics([]).rows, passes=self.epochs):
            self._fit(rows, held_out, self.encode(rows, label, features, exclude, weight), engine)
        return self

    def _fit(self, rows: Table, held_out: Table | None, encoding: FittedEncoding, engine: Engine | None) -> None:
        loss = self.loss_of(encoding)
        form = InputForm(encoding, self.precision)
        module = self.make_module(form, loss)
        training = self.make_training(module, form, loss)
        strategy = self._strategy(rows, training, form, engine)
        engine = engine or LocalEngine(strategy.workers)
        if self.checkpoint is not None and not self.resume:
            Checkpoints(self.checkpoint, {}).clear()
        with ExitStack() as stack, nullcontext() if self.plan_ is None else self.plan_.measuring():
            data = make_data(self, rows, held_out, encoding, strategy.workers, engine, stack, folds=strategy.folds)
            if self.plan_ is not None:
                self.plan_.notes += notes_on(data, training, strategy.workers)
            trained = train_guarded(strategy, training, data, engine)
        self._take(module, encoding, loss, strategy, trained)

    def _strategy(self, rows: Table, training: Training, form: InputForm, engine: Engine | None) -> Strategy:
        work = describe_work(self, training.module, form)
        if isinstance(self.strategy, Strategy) and self.strategy.name not in work.strategies:
            self.plan_ = None  # a strategy from elsewhere: nobody knows its cost
            return self.strategy
        self.plan_ = make_plan(self, rows, work, training, form, engine)
        emit(Planned(text=str(self.plan_)))
        return chosen_strategy(self, self.plan_)

    def _take(
        self, module: torch.nn.Module, encoding: FittedEncoding, loss: Loss, strategy: Strategy, trained: Trained
    ) -> None:
        self.module_ = module.to(weights_dtype(self.precision))
        self.module_.load_state_dict(trained.weights)
        self.module_.eval()
        self.encoding_ = encoding
        self.target_: Target = loss.target
        self.strategy_: Strategy | str = strategy
        self.history_ = trained.history
        self.steps_ = trained.steps
        self.best_epoch_ = trained.best_epoch

    def encode(
        self, rows: Table, label: str, features: Features = None, exclude: Sequence[str] = (), weight: str | None = None
    ) -> FittedEncoding:
        """The encoding of the features and the label, fitted on `rows`."""
        return fit_encoding(self, rows, label, features, exclude, weight)

    def explain(
        self,
        data: Any,
        *,
        label: str,
        features: Features = None,
        exclude: Sequence[str] = (),
        weight: str | None = None,
        engine: Engine | None = None,
        **wishes: Any,
    ) -> Plan:
        """What `fit` would do, and its cost. The table is looked at, nothing is trained but some steps on made-up rows, where
        all of it takes so long that they do not matter. `wishes` go to `braidwater.planner.plan`."""
        rows = table(data)
        encoding = self.encode(rows, label, features, exclude, weight)
        form, loss = InputForm(encoding, self.precision), self.loss_of(encoding)
        training = self.make_training(self.make_module(form, loss), form, loss)
        return make_plan(self, rows, describe_work(self, training.module, form), training, form, engine, **wishes)

    def work(self, rows: Table, encoding: FittedEncoding) -> Work:
        """The training as the planner sees it: operations and bytes counted on one row."""
        form = InputForm(encoding, self.precision)
        module = self.make_module(form, self.loss_of(encoding))
        return describe_work(self, module, form)

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

    def inputs(self, data: Any, rows: int = 16) -> torch.Tensor:
        """The first rows of a table as the module gets them, ``(rows, *shape)``; the NULL policy may drop some."""
        self._require_fitted()
        form = self._predictor(self.encoding_.for_prediction()).form
        batch = next(table(data).read(form.encoding.columns, batch_rows=rows))
        features, _ = form.encode(batch.slice(0, rows))
        return form.tensor(features.reshape(-1, *form.shape))

    def save(self, path: str | Path, *, metrics: Mapping[str, Any] | None = None) -> Path:
        """Write the trained model into the folder `path` (safetensors and JSON); `Trainer.load` reads it back.

        What it was trained on (table, schema, rows), its plan with the measured figures, and `metrics` if you give some are
        written down with it.
        """
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
            "trained_on": self.trained_on_,
            "plan": None if self.plan_ is None else self.plan_.to_json(),
            "metrics": dict(metrics or {}),
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
        trainer.trained_on_ = document["trained_on"]
        trainer.strategy_ = document["strategy"]
        outputs = len(trainer.classes_) if trainer.classes_ is not None else 1
        form = InputForm(trainer.encoding_, trainer.precision)
        made = build_module(factory, trainer.module_arguments, form, outputs, trainer.seed)
        trainer.module_ = made.to(weights_dtype(trainer.precision))
        load_weights(trainer.module_, {name: torch.from_numpy(np.array(a)) for name, a in saved.arrays.items()})
        return trainer

    @property
    def classes_(self) -> list[Any] | None:
        """The classes of the label in the order of the module's outputs; None where the label is a number."""
        return self.encoding_.classes

    def _predictor(self, encoding: FittedEncoding) -> Predictor:
        self.module_.eval()
        return Predictor(self.module_, InputForm(encoding, self.precision), self.classes_)

    def _require_fitted(self) -> None:
        if not hasattr(self, "module_"):
            raise UnsupportedError(
                "This trainer has not been fitted. Call fit(table, label=...) or Trainer.load(path) first."
            )


_PLAIN = ("epochs", "batch_size", "precision", "accumulate", "clip_norm", "nulls", "standardise", "seed")
