"""What a training is asked to be: the settings of a trainer, checked, and what follows from them alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from braidwater.deep.building import ModuleSpec, build_module, check_outputs
from braidwater.deep.inputs import InputForm
from braidwater.deep.losses import Loss, LossFunction, Target, find_loss
from braidwater.deep.metrics import find_metrics
from braidwater.deep.optimizers import OptimizerChoice, OptimizerPlan
from braidwater.deep.schedules import Schedule, find_schedule
from braidwater.encoding import FittedEncoding
from braidwater.engines.base import TIMEOUT
from braidwater.errors import LabelError, OptionError
from braidwater.parallel import Strategy, Training, strategy_class
from braidwater.parallel.augmentation import Augmentation, find_augmentations
from braidwater.parallel.mixed_precision import Precision

KINDS = ("trainer", "mlp", "cnn")

PRECISIONS = ("float32", "bf16", "fp16", "float64")
_SAME_PRECISION = {"fp32": "float32", "fp64": "float64", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when the validation loss has not sunk by `min_improvement` for `patience` epochs; the best weights are kept."""

    patience: int = 3
    min_improvement: float = 0.0

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise OptionError("patience", self.patience, "at least 1 epoch")


class Settings:
    """The settings of `Trainer`, which describes them, and the module, loss and `Training` that they make."""

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
        precision: Precision | str = "float32",
        accumulate: int = 1,
        clip_norm: float | None = None,
        early_stopping: EarlyStopping | int | None = None,
        freeze: Sequence[str] = (),
        groups: Mapping[str, float] | None = None,
        metrics: Sequence[str] = (),
        nulls: str | float = "refuse",
        standardise: bool = True,
        shuffle: bool = False,
        seed: int = 0,
        checkpoint: str | Path | None = None,
        checkpoint_every: int | Literal["epoch"] = "epoch",
        resume: bool = True,
        max_restarts: int = 0,
        timeout: float = TIMEOUT,
        max_rollbacks: int = 0,
        augment: str | Augmentation | Sequence[str | Augmentation] = (),
        recompute: bool | Sequence[str] = False,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        histograms: bool = False,
        profile: str | Path | None = None,
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
        self.precision: Any = _SAME_PRECISION.get(precision, precision)
        self.accumulate = accumulate
        self.clip_norm = clip_norm
        self.early_stopping = EarlyStopping(early_stopping) if isinstance(early_stopping, int) else early_stopping
        self.metrics = tuple(metrics)
        self.nulls = nulls
        self.standardise = standardise
        self.shuffle = shuffle
        self.seed = seed
        self.checkpoint = None if checkpoint is None else str(checkpoint)
        self.checkpoint_every = checkpoint_every
        self.resume = resume
        self.max_restarts = max_restarts
        self.timeout = timeout
        self.max_rollbacks = max_rollbacks
        self.augment = find_augmentations(augment)
        self.recompute = recompute if isinstance(recompute, bool) else tuple(recompute)
        self.device = device
        self.histograms = histograms
        self.profile = None if profile is None else str(profile)
        self.kind = kind
        self._check()

    def _check(self) -> None:
        for name, value in (("epochs", self.epochs), ("batch_size", self.batch_size), ("accumulate", self.accumulate)):
            if not isinstance(value, int) or value < 1:
                raise OptionError(name, value, "a whole number from 1 on")
        if self.precision not in PRECISIONS:
            raise OptionError("precision", self.precision, f"one of {', '.join(PRECISIONS)}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise OptionError("device", self.device, "one of auto, cpu, cuda")
        for name, value in (("max_restarts", self.max_restarts), ("max_rollbacks", self.max_rollbacks)):
            if not isinstance(value, int) or value < 0:
                raise OptionError(name, value, "0 or more")
        if not self.timeout > 0:
            raise OptionError("timeout", self.timeout, "seconds above 0")
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

    def loss_of(self, encoding: FittedEncoding) -> Loss:
        """The loss, for the kind of label that was encoded."""
        return find_loss(self.loss, self.label_kind, number_label=encoding.classes is None)

    def make_module(self, form: InputForm, loss: Loss) -> torch.nn.Module:
        """The module to start from, its outputs compared with what the label needs."""
        classes = form.encoding.classes
        if classes is not None and len(classes) < 2:
            raise LabelError(f"The label has one class only, {classes[0]!r}: there is nothing to tell apart.")
        outputs = 1 if classes is None else len(classes)
        module = build_module(self.module, self.module_arguments, form, outputs, self.seed)
        check_outputs(module, form, loss.target, outputs)
        return module

    def make_training(self, module: torch.nn.Module, form: InputForm, loss: Loss) -> Training:
        """What a strategy gets to know of the settings."""
        classes = form.encoding.classes
        stopping = self.early_stopping
        return Training(
            module=module,
            loss=loss.function,
            optimizer=self.optimizer,
            form=form.rows,
            input_scale=form.scale,
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
            timeout=self.timeout,
            max_rollbacks=self.max_rollbacks,
            augmentations=self.augment,
            recompute=self.recompute,
            device=self.device,
            histograms=self.histograms,
            profile=self.profile,
        )
