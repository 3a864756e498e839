"""Synchronous data parallelism: each step's gradient is the mean over the rows of all workers."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch.nn.parallel import DistributedDataParallel

from braidwater.blocks.mini_batches import MiniBatch
from braidwater.engines.base import Engine, Member
from braidwater.errors import OptionError, UnsupportedError
from braidwater.parallel.base import Data, Strategy, Trained, Training, check_workers, run_gang
from braidwater.parallel.compression import Compression, Exchange, compression_of
from braidwater.parallel.compression.base import done
from braidwater.parallel.group import GroupReplica, check_alike
from braidwater.parallel.learner import Learner
from braidwater.parallel.loop import run_epochs
from braidwater.parallel.shared_memory import SharedMemory, is_possible, open_shared_memory

# without it the first bucket has 1 MB, to be on its way early: through memory that would only be one more meeting
_BUCKET_MB = 25

Transport = Literal["auto", "gloo", "shared_memory"]

if TYPE_CHECKING:
    from torch._C._distributed_c10d import GradBucket


@dataclass(frozen=True)
class AllReduce(Strategy):
    """Every worker computes on its part of each step's rows; the gradients are summed by all-reduce while they are made.

    Equal to one process with the same `batch_size`: each worker's losses are divided by the rows of the whole step, so
    parts of unequal size weigh what they should. torch's DistributedDataParallel does the exchange (Li et al. 2020,
    "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", arXiv 2006.15704): a step costs the compute
    on a part, and an all-reduce of as many bytes as there are weights. Batch normalisation sees each worker's own part.

    `compression` makes the gradients smaller, and the training no longer exact: ``"fp16"``, ``"bf16"``, ``"power_sgd"``,
    ``"threshold"``, or an object of `braidwater.parallel.compression` with options. `transport` says how workers on
    processors talk: through memory that they share ("shared_memory", faster), through sockets while gradients are still
    being made ("gloo"), or the former where all of them are on one machine and nothing is compressed ("auto"). Where other
    programs keep the cores busy, "gloo" can be the quicker one: its threads wait beside the computing.
    `find_unused_parameters` is for modules that leave out parameters in some steps; without it they are refused.
    """

    name: ClassVar[str] = "all_reduce"
    exact: ClassVar[bool] = True
    resizable: ClassVar[bool] = True
    workers: int = 2
    compression: str | Compression | None = None
    transport: Transport = "auto"
    find_unused_parameters: bool = False

    def __post_init__(self) -> None:
        check_workers(self.workers)
        if self.transport not in ("auto", "gloo", "shared_memory"):
            raise OptionError("transport", self.transport, "one of auto, gloo, shared_memory")
        if compression_of(self.compression) is not None:
            if self.transport == "shared_memory":
                raise OptionError("transport", self.transport, "auto or gloo where gradients are compressed")
            object.__setattr__(self, "exact", False)

    def train(self, training: Training, data: Data, engine: Engine) -> Trained:
        self._check(training)
        stores = data.for_members()
        compression = compression_of(self.compression)
        identity = self.name if compression is None else f"{self.name}, {compression}"

        def run(member: Member) -> Trained | None:
            trained = run_epochs(training, stores, AllReduceReplica(member, self), strategy=identity)
            return trained if member.rank == 0 else None  # all have the same weights: one hands them over

        trained = run_gang(engine, training, self.workers, run)[0]
        assert trained is not None
        return trained

    def _check(self, training: Training) -> None:
        if self.transport == "shared_memory" and (not is_possible() or training.device == "cuda"):
            raise UnsupportedError("transport='shared_memory' is for processors under Linux. Use transport='auto'.")
        compression = compression_of(self.compression)
        if compression is not None and compression.keeps_residual and training.precision == "fp16":
            raise UnsupportedError(
                f"compression={compression.name!r} keeps what it did not send for later steps, whose loss scale is another one "
                "in precision='fp16'. Use precision='bf16', or compression='fp16'."
            )


class AllReduceReplica(GroupReplica):
    """A worker whose gradients are averaged with those of the others in every step."""

    def __init__(self, member: Member, strategy: AllReduce) -> None:
        super().__init__(member)
        self._strategy = strategy
        self._compression = compression_of(strategy.compression)
        self.resizable = self._compression is None or not self._compression.keeps_residual

    def place(self, module: torch.nn.Module) -> torch.nn.Module:
        check_alike(module)
        return module

    def wrap(self, module: torch.nn.Module) -> torch.nn.Module:
        self._exchange = self._make_exchange(module)
        # the gradient lies in the bucket that is sent: no copy before and after
        self._wrapped = DistributedDataParallel(
            module,
            gradient_as_bucket_view=True,
            find_unused_parameters=self._strategy.find_unused_parameters,
            bucket_cap_mb=_BUCKET_MB if isinstance(self._exchange, _ThroughMemory) else None,
        )
        if self._exchange is not None:
            # torch compares the annotations of a hook with types, and would find their names
            self._wrapped.register_comm_hook(self._exchange, lambda exchange, bucket: exchange(bucket))
        self._in_step = _InStep(self._wrapped, self.rank)
        self._gradient_bytes = sum(p.nbytes for p in module.parameters() if p.requires_grad)
        self._buffer_bytes = sum(buffer.nbytes for buffer in module.buffers())  # of worker 0, before each step
        return self._wrapped

    def _make_exchange(self, module: torch.nn.Module) -> Exchange | None:
        if self._compression is not None:
            return self._compression.exchange(module)
        on_processor = all(p.device.type == "cpu" for p in module.parameters())
        if self._strategy.transport == "gloo" or self.size == 1 or not on_processor:
            return None
        memory = open_shared_memory()
        if memory is None and self._strategy.transport == "shared_memory":
            raise UnsupportedError("The workers are not on one machine, or may not share memory. Use transport='gloo'.")
        return None if memory is None else _ThroughMemory(memory, self)

    def backward(self, last: bool) -> AbstractContextManager[Any]:
        found: AbstractContextManager[Any] = self._in_step if last else self._wrapped.no_sync()
        return found

    def divisor(self, weight: float, batch: MiniBatch, weighted: bool) -> float:
        # DistributedDataParallel takes the mean over the workers; times `size` that is their sum
        whole = self.sum([weight])[0] if weighted else batch.global_rows
        return whole / self.size

    def stepped(self, learner: Learner, weight: float) -> None:
        gradients = self._gradient_bytes if self._exchange is None else self._exchange.take_bytes()
        self.bytes_exchanged += gradients + self._buffer_bytes

    def state(self) -> Any:
        return {} if self._exchange is None else self._exchange.state()

    def load_state(self, state: Any, learner: Learner) -> None:
        if self._exchange is not None:
            self._exchange.load_state(state)


class _ThroughMemory(Exchange):
    """Sums in memory that all workers share."""

    def __init__(self, memory: SharedMemory, replica: GroupReplica) -> None:
        self._memory = memory
        self._replica = replica

    def __call__(self, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        gradients = bucket.buffer()
        with self._replica.talking():
            self._memory.sum(gradients, 1 / self._memory.size)
        self.bytes += gradients.nbytes
        return done(bucket)


class _InStep(AbstractContextManager[None]):
    """Around a step's last backward pass: after it no parameter may still wait for its gradient."""

    def __init__(self, wrapped: DistributedDataParallel, rank: int) -> None:
        self._wrapped = wrapped
        self._rank = rank

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        try:
            self._wrapped.reducer._check_reducer_finalized()
        except RuntimeError as error:
            raise self._unused(str(error)) from None

    def _unused(self, text: str) -> UnsupportedError:
        found = re.search(r"did not receive grad for rank \d+: ([\d ]+)", text)
        names = [name for name, p in self._wrapped.module.named_parameters() if p.requires_grad]
        unused = [names[int(place)] for place in found[1].split()] if found else ["some"]
        return UnsupportedError(
            f"The loss on worker {self._rank} does not depend on the parameters {', '.join(unused)}, and the other workers would "
            "wait for their gradients. Take them out of the module, freeze them, or use "
            "AllReduce(find_unused_parameters=True)."
        )
