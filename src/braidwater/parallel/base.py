"""The contract of a strategy: how one training is spread over workers.

Light: torch is imported when a strategy trains, not when it is made.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from braidwater.blocks.mini_batches import MiniBatch, Share
from braidwater.blocks.source import BlockSource
from braidwater.blocks.store import BlockStore
from braidwater.blocks.windows import RowForm
from braidwater.engines.base import TIMEOUT, Engine, Member, OnLoss
from braidwater.errors import BraidwaterError, OptionError, WorkerError

if TYPE_CHECKING:
    import torch

    from braidwater.parallel.augmentation import Augmentation
    from braidwater.parallel.learner import Learner
    from braidwater.parallel.mixed_precision import Precision

Result = TypeVar("Result")


@dataclass(frozen=True)
class Training:
    """What is to be trained, and how, whatever the number of workers.

    `module` holds the weights to start from; nobody changes them. `loss(output, target)` gives one number a row, or their
    mean; where it has a method `mean_of_rows`, that is called instead when all rows count the same, which is faster.
    `optimizer` is called with the module of each worker. Features are multiplied with `input_scale` (the bytes of
    images with 1/255). `schedule(step, steps)` is the factor of the learning rate at a step (counted from 0) of all steps.
    `batch_size` is the most rows of an optimiser step over all workers; `accumulate` cuts a worker's part of it into that
    many pieces that are computed one after another, which bounds memory and changes nothing else. `target` says whether
    labels are class codes or numbers. `metrics` makes the metrics that are computed on the validation rows. `patience`
    (epochs) stops training when the validation loss has not sunk by `min_improvement`. `checkpoint` is a folder, written
    to after each epoch and, where `checkpoint_every` is a number, after so many steps; `max_restarts` is how often a gang
    that lost a worker is started anew from it, `timeout` how many seconds a worker waits for another one, `max_rollbacks`
    how often a training whose loss is not finite goes back to it at half the learning rate (`rate_factor` is what has
    become of the rate). `augmentations` change the features of training rows. `recompute` names layers that keep no
    activations (see `recompute_layers`), `histograms` asks for those of the weights after each epoch, `profile` is a folder
    for a trace of some steps of each worker. `device` is ``"cpu"``, ``"cuda"`` (worker i takes GPU i), or ``"auto"``.
    """

    module: torch.nn.Module
    loss: Callable[[Any, Any], Any]
    optimizer: Callable[[torch.nn.Module], torch.optim.Optimizer]
    form: RowForm
    input_scale: float = 1.0
    target: Literal["class", "number"] = "class"
    schedule: Callable[[int, int], float] | None = None
    epochs: int = 1
    batch_size: int = 128
    accumulate: int = 1
    clip_norm: float | None = None
    precision: Precision = "float32"
    seed: int = 0
    metrics: Callable[[], dict[str, Any]] | None = None
    patience: int | None = None
    min_improvement: float = 0.0
    checkpoint: str | None = None
    checkpoint_every: int | Literal["epoch"] = "epoch"
    max_restarts: int = 0
    timeout: float = TIMEOUT
    max_rollbacks: int = 0
    rate_factor: float = 1.0
    augmentations: Sequence[Augmentation] = ()
    recompute: bool | Sequence[str] = False
    histograms: bool = False
    profile: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True)
class Data:
    """The rows to train on, and those to validate on after each epoch.

    `validation_form` is that of the validation's rows where it is not the training's. `source` and `validation_source` are
    where they come from. Only strategies that run as aggregates need these, and they stay in this process.
    """

    rows: BlockStore
    validation: BlockStore | None = None
    validation_form: RowForm | None = None
    source: BlockSource | None = None
    validation_source: BlockSource | None = None

    def for_members(self) -> Data:
        """What other processes get: stores travel as the paths of their files."""
        return Data(self.rows, self.validation, self.validation_form)


@dataclass(frozen=True)
class Trained:
    """The end of a training: weights by the names of the module's state, and a record of every epoch.

    `optimizer` is the state of the optimiser of worker 0. `best_epoch` is the epoch that the weights are of.
    """

    weights: dict[str, torch.Tensor]
    history: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    best_epoch: int = 0


class Strategy(ABC):
    """How one training is spread over workers.

    The laws that `braidwater.testing.STRATEGY_CHECKS` checks for every strategy:

    - every row counts once an epoch, also where rows do not divide evenly;
    - the same seed and the same number of workers give the same weights, bit for bit;
    - where `exact` is true, the weights are those of one process with the same `batch_size`, beyond rounding.
    """

    name: ClassVar[str]
    exact: ClassVar[bool]
    # the shapes of work that it runs as, whichever an engine can do; none: in this process
    shapes: ClassVar[tuple[str, ...]] = ("gang",)
    # when a worker dies: all start again from the last checkpoint, or the others go on
    on_loss: ClassVar[OnLoss] = "restart"
    # whether a checkpoint can be taken up by another number of workers
    resizable: ClassVar[bool] = False
    workers: int = 1

    @property
    def reproducible(self) -> bool:
        """Whether the second law holds. Not where workers do not wait for each other: who comes first decides then."""
        return True

    @property
    def folds(self) -> bool:
        """Whether rows are only ever folded by `engine.aggregate`, so that they may stay where they lie (`Engine.place`)."""
        return False

    @abstractmethod
    def train(self, training: Training, data: Data, engine: Engine) -> Trained:
        """Train to the end. Errors of workers arrive as they were raised; a worker that died is a `WorkerLostError`."""


class Replica:
    """One worker's part in a strategy: what it adds around a module, a step and an epoch. As it stands: a worker alone.

    `rank` of `size` is the worker's place in the gang. `data_rank` of `data_size` says whose rows it computes on: the members
    that hold the parts of one module share them, so `data_size` is then smaller than `size`. The methods called
    "collective" are called by all workers at the same point, and may talk.
    """

    rank = 0
    size = 1
    data_rank = 0
    data_size = 1
    share: Share = "batch"
    # whether optimiser and module are the same on all workers, so that worker 0 alone writes them down
    replicated = True
    # whether the module talks inside its forward pass, so that workers without rows must run it too
    talks_in_forward = False
    # whether a checkpoint of it can be taken up by another number of workers
    resizable = False
    # bytes of gradients, weights and activations that this worker has handed to others since it started; reported each epoch
    bytes_exchanged = 0
    # wall time in which it computed nothing because messages were under way (see `talking`)
    seconds_exchanging = 0.0

    @property
    def counts_rows(self) -> bool:
        """Whether the rows this worker reports are its own, and not those of another part of the same module."""
        return self.rank == self.data_rank

    @property
    def steps_without_rows(self) -> bool:
        """Whether this worker takes a step that only others have rows in: where the gradient is that of all."""
        return self.replicated

    def learner(self, training: Training, steps: int) -> Learner:
        """The learner that takes this worker's steps, `steps` of them in the whole training."""
        from braidwater.parallel.learner import Learner

        return Learner(training, self, steps)

    def place(self, module: torch.nn.Module) -> torch.nn.Module:
        """This worker's part of the module: what the optimiser is made for. Collective."""
        return module

    def wrap(self, module: torch.nn.Module) -> torch.nn.Module:
        """What is called in training instead of the placed module."""
        return module

    def backward(self, last: bool) -> AbstractContextManager[Any]:
        """Around forward and backward of one piece of a step; `last` for the step's last piece."""
        return nullcontext()

    def divisor(self, weight: float, batch: MiniBatch, weighted: bool) -> float:
        """What the sum of a worker's losses is divided by, so that the step's gradient is that of a mean over rows.

        `weight` is the sum of the worker's row weights (the count of its rows where they have none).
        """
        return weight

    def clip(self, parameters: Sequence[torch.nn.Parameter], norm: float) -> None:
        """Scale the gradients so that the norm of all of them, wherever they lie, is at most `norm`. Collective."""
        from torch.nn.utils import clip_grad_norm_

        clip_grad_norm_(parameters, norm)

    def agreed(self, finite: bool) -> bool:
        """Whether the gradients are finite on all workers that hold a part of them. Collective."""
        return finite

    def stepped(self, learner: Learner, weight: float) -> None:
        """After the optimiser's step on rows of total `weight`."""

    def settle(self, learner: Learner) -> None:
        """Make the weights those of the whole training: before they are validated or handed over. Collective."""

    def unsettle(self, learner: Learner) -> None:
        """Take up the worker's own weights again, after an epoch's `settle`, where they are not those of the whole."""

    def weights(self, learner: Learner) -> dict[str, torch.Tensor]:
        """A copy of the state of the whole module, under the names of the module handed in. Collective.

        Workers other than 0 may give an empty dictionary where they hold only a part.
        """
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in learner.module.state_dict().items()}

    def state(self) -> Any:
        """What this worker has to remember between two steps, for a checkpoint: plain values and tensors in any nesting."""
        return {}

    def load_state(self, state: Any, learner: Learner) -> None:
        """Take up what `state` gave."""

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums of `values` over the workers with rows of their own. Collective."""
        return list(values)

    def barrier(self) -> None:
        """Wait until all workers are here."""

    @contextmanager
    def talking(self) -> Iterator[None]:
        """Around an exchange that this worker waits for: its time goes to `seconds_exchanging`."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds_exchanging += time.perf_counter() - begun


def check_workers(workers: int) -> int:
    """`workers` if it is a possible number of workers."""
    if workers < 1:
        raise OptionError("workers", workers, "at least 1")
    return workers


def run_gang(
    engine: Engine,
    training: Training,
    workers: int,
    member: Callable[[Member], Result],
    on_loss: OnLoss = "restart",
) -> list[Result]:
    """`engine.gang` for a training: errors that say what to do reach the user as they were raised in the worker."""
    try:
        return engine.gang(
            member, workers, max_restarts=training.max_restarts, on_loss=on_loss, timeout=training.timeout
        )
    except WorkerError as error:
        if isinstance(error.__cause__, BraidwaterError):
            raise error.__cause__ from error
        raise
