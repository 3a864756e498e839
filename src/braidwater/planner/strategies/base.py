"""The contract of a cost formula: what a training step costs under one strategy, wherever it runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any, ClassVar, Literal

from braidwater.planner.base import Layer

Options = Mapping[str, Any]
Transport = Literal["gloo", "shared_memory"]

BUCKET_BYTES = 25 * 2**20  # what torch's DDP reduces at a time
FIRST_BUCKET = 2**20
FORWARD = 1 / 3  # of the arithmetic of a step: backward computes gradients of weights and of inputs


@dataclass(frozen=True)
class Net:
    """What is trained, in figures. Times are of one worker that nobody disturbs; sizes are bytes.

    Forward and backward on r rows take ``call_seconds + r * row_seconds``, the optimiser's step `update_seconds`.
    `alone_seconds` is a whole step of one worker on all `step_rows` (on all cores of a machine). `activations` is what
    a row keeps for its backward pass. `epoch_steps` are the steps of an epoch, `models` the members of an
    ensemble.
    """

    step_rows: int
    row_seconds: float
    call_seconds: float
    update_seconds: float
    alone_seconds: float
    weights: int
    activations: float
    moments: int = 2
    layers: tuple[Layer, ...] = ()
    epoch_steps: int = 1
    models: int = 1

    def seconds(self, rows: float, share: float = 1.0, calls: float = 1.0) -> float:
        """Forward and backward of `share` of the net on `rows` rows, in `calls` pieces."""
        return share * (calls * self.call_seconds + rows * self.row_seconds)

    @property
    def state(self) -> int:
        """Weights, gradients and the optimiser's moments."""
        return (2 + self.moments) * self.weights

    def part(self, which: str) -> tuple[float, int]:
        """Share of the time, and bytes of the weights, of the layers whose attribute `which` is true."""
        found = [layer for layer in self.layers if getattr(layer, which)]
        return sum(layer.share for layer in found), sum(layer.parameters for layer in found)


class Place(ABC):
    """Where a training runs: how workers slow each other down, and how long they talk."""

    one_machine: bool  # whether workers are processes that share cores and memory
    bucket_bytes: int = BUCKET_BYTES  # gradients that are sent at a time

    def buckets(self, size: float) -> int:
        """The messages in which gradients of `size` bytes are sent. The first is small: there is little to wait for."""
        return 1 + max(ceil((size - FIRST_BUCKET) / self.bucket_bytes), 0)

    @abstractmethod
    def contention(self, workers: int, rows: float) -> float:
        """How much longer a worker computes on `rows` rows when `workers` do so at a time."""

    def meeting(self, compute: float) -> float:
        """How long workers that compute so long wait for the slowest where they meet."""
        return 0.0

    @property
    def transport(self) -> Transport:
        """What exchanges inside forward and backward passes go through."""
        return "shared_memory" if self.one_machine else "gloo"

    @abstractmethod
    def all_reduce(self, size: float, workers: int, messages: int = 1, transport: Transport = "gloo") -> float:
        """Seconds until all `workers` have the sum of `size` bytes of each, sent in `messages` messages."""

    @abstractmethod
    def all_gather(self, size: float, workers: int, messages: int = 1, transport: Transport = "gloo") -> float:
        """Seconds until all have the parts of all, together `size` bytes."""

    @abstractmethod
    def reduce_scatter(self, size: float, workers: int, messages: int = 1) -> float:
        """Seconds until each has its part of the sum of `size` bytes."""

    @abstractmethod
    def send(self, size: float, messages: int = 1, transport: Transport = "gloo") -> float:
        """Seconds from one worker to another."""

    @abstractmethod
    def exposed(self, exchange: float, backward: float, buckets: int) -> float:
        """The part of an exchange of gradients, `buckets` messages, that a backward pass does not hide."""

    @abstractmethod
    def pass_over(self, size: float) -> float:
        """Seconds to read `size` bytes of memory and write them."""


@dataclass(frozen=True)
class Price:
    """What a step costs each worker under a strategy.

    `compute` and `exchange` are seconds, one after the other; `busy` are the workers that compute (those of a pipeline wait
    for each other: less than all), `others` processes beside the workers, `rows` those that a worker computes on at a time
    (0: its part of the step's). `sent` are the bytes that a worker puts on the wire in a step, `memory` what it holds by
    what takes it. `starts` says whether processes are started, `refused` why this cannot run.
    """

    compute: float
    exchange: float = 0.0
    sent: float = 0.0
    memory: dict[str, int] = field(default_factory=dict)
    busy: float = 1.0
    others: int = 0
    rows: float = 0.0
    refused: str = ""
    starts: bool = True

    @property
    def seconds(self) -> float:
        return self.compute + self.exchange


class StrategyCost(ABC):
    """The cost formula of a strategy. `defaults` are the options that the strategy has where nobody says otherwise."""

    name: ClassVar[str]
    exact: ClassVar[bool] = True  # whether it learns what one worker would
    laid_out: ClassVar[bool] = False  # whether the user has to say how many workers go where
    why: ClassVar[str]  # what it does, for a plan
    formula: ClassVar[str]  # bytes that a worker sends in a step, in words: P weights, n workers, B rows of a step
    needs: ClassVar[str] = ""  # why it may be impossible for a net
    defaults: ClassVar[dict[str, Any]] = {}

    def is_possible(self, layers: tuple[Layer, ...]) -> bool:
        """Whether a net of these layers can be trained with it."""
        return True

    def price(self, net: Net, place: Place, workers: int, options: Options) -> Price:
        """A step of `net` at `place` with these options of the strategy."""
        if not self.is_possible(net.layers):
            return Price(0.0, refused=self.needs)
        found = self.undisturbed(net, place, workers, {**self.defaults, **options})
        kappa = place.contention(workers + found.others, found.rows or net.step_rows / workers)
        return replace(found, compute=kappa * found.compute)

    @abstractmethod
    def undisturbed(self, net: Net, place: Place, workers: int, options: Options) -> Price:
        """The same if workers did not slow each other's computing down."""

    def for_workers(self, options: Options, workers: int) -> Options:
        """The options with those that follow from the number of workers."""
        return options

    def is_exact(self, options: Options) -> bool:
        return self.exact

    def told(self, options: Options) -> str:
        """The options that make a difference, for a table."""
        return ""


def ring_share(workers: int) -> float:
    """Of a message, what each of `workers` sends in an all-gather or a reduce-scatter; twice that in an all-reduce."""
    return (workers - 1) / workers


def held(net: Net, rows: float, weights: float | None = None) -> dict[str, int]:
    """Weights, gradients and moments of `weights` bytes, and the activations of `rows` rows."""
    own = net.weights if weights is None else weights
    return {"weights": int((2 + net.moments) * own), "activations": int(rows * net.activations)}
