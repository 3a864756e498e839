"""Sharded data parallelism: no worker holds the whole of weights, gradients and optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.nn.modules.batchnorm import _BatchNorm

from braidwater.blocks.mini_batches import MiniBatch
from braidwater.engines.base import Engine, Member
from braidwater.errors import OptionError, UnsupportedError
from braidwater.parallel.base import Data, Strategy, Trained, Training, check_workers, run_gang
from braidwater.parallel.group import GroupReplica, check_alike
from braidwater.parallel.learner import Learner
from braidwater.parallel.loop import run_epochs
from braidwater.parallel.shards import is_shared

# their forward passes read the weights of the layers inside them without calling these
_WHOLE = (torch.nn.MultiheadAttention, torch.nn.TransformerEncoderLayer, torch.nn.TransformerDecoderLayer)
_LISTS = (torch.nn.ModuleList, torch.nn.ModuleDict)  # have no forward pass


@dataclass(frozen=True)
class Sharded(Strategy):
    """Each of n workers keeps 1/n of every weight, gradient and moment, and computes on its part of each step's rows.

    Rajbhandari, Rasley, Ruwase and He 2020 ("ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", arXiv
    1910.02054) by torch's `fully_shard`. Equal to one process with the same `batch_size`. The weights of a layer are gathered
    when it computes. With `stage` 3 they are let go of after its forward pass and gathered again on the way back: with
    P bytes of weights and Adam a worker holds 4 P / n, and the largest layer whole. With `stage` 2 they stay from the
    forward pass to the backward pass: up to P + 4 P / n within a step, and one gathering less.

    Children of the module with `min_parameters` or more become layers of their own, what is left goes with the module
    itself. A layer's weights may only be read in its own forward pass; where a module reads them elsewhere, make
    `min_parameters` larger than all of them. `offload` keeps the parts in the processor's memory where workers compute on
    GPUs. While it starts, a worker holds the whole module twice. It hands over P bytes of gradients in a step, and P / n of
    weights for each gathering.
    """

    name: ClassVar[str] = "sharded"
    exact: ClassVar[bool] = True
    resizable: ClassVar[bool] = True
    workers: int = 2
    stage: Literal[2, 3] = 3
    offload: bool = False
    min_parameters: int = 100_000

    def __post_init__(self) -> None:
        check_workers(self.workers)
        if self.stage not in (2, 3):
            raise OptionError("stage", self.stage, "2 or 3")
        if self.min_parameters < 1:
            raise OptionError("min_parameters", self.min_parameters, "at least 1")

    def train(self, training: Training, data: Data, engine: Engine) -> Trained:
        self._check(training)
        stores = data.for_members()

        def run(member: Member) -> Trained | None:
            replica = ShardedReplica(member, self, training.precision)
            trained = run_epochs(training, stores, replica, strategy=self.name)
            return trained if member.rank == 0 else None  # only worker 0 has gathered the weights

        trained = run_gang(engine, training, self.workers, run)[0]
        assert trained is not None
        return trained

    def _check(self, training: Training) -> None:
        if self.offload and (training.device == "cpu" or not torch.cuda.is_available()):
            raise UnsupportedError(
                "offload=True is for workers on GPUs; here they compute on processors. Leave it out."
            )
        if training.precision == "fp16":
            raise UnsupportedError("Sharded cannot follow a loss scale over parts of gradients. Use precision='bf16'.")


class ShardedReplica(GroupReplica):
    """A worker that holds a part of every parameter."""

    replicated = False
    talks_in_forward = True
    resizable = True
    steps_without_rows = True

    def __init__(self, member: Member, strategy: Sharded, precision: str) -> None:
        super().__init__(member)
        self._strategy = strategy
        self._half = precision == "bf16"
        self._synchronised = True
        self._gathered_bytes = self._gradient_bytes = 0  # of this worker in one piece of a step, and in its last

    def learner(self, training: Training, steps: int) -> Learner:
        found = super().learner(training, steps)
        training.module.to(
            "meta"
        )  # this process's own copy of the whole: names and shapes are all that is needed of it
        return found

    def place(self, module: torch.nn.Module) -> torch.nn.Module:
        check_alike(module)
        self._mesh = init_device_mesh(next(module.parameters()).device.type, (self.size,))
        if self._half:
            for layer in [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]:
                self._shard(layer, reshard=self._strategy.stage == 3, half=False)  # its statistics are float32
        if not _has_tied_weights(module):  # those belong to no layer alone
            for child in module.children():
                self._shard_layers(child)
        # what is needed first on the way back is not let go of before
        self._fully_sharded = self._shard(module, reshard=False, half=self._half)
        return module

    def _shard_layers(self, module: torch.nn.Module) -> int:
        """Make layers of the module and those within it, the innermost first; how many parameters are in none."""
        whole = isinstance(module, _WHOLE)
        left = sum(p.numel() for p in module.parameters(recurse=whole) if not is_shared(p))
        left += 0 if whole else sum(map(self._shard_layers, module.children()))
        if left < self._strategy.min_parameters or isinstance(module, _LISTS):
            return left
        self._shard(module, reshard=self._strategy.stage == 3, half=self._half)
        return 0

    def _shard(self, module: torch.nn.Module, *, reshard: bool, half: bool) -> FSDPModule:
        before = {id(p) for p in module.parameters() if is_shared(p)}
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if half else MixedPrecisionPolicy()
        offload = CPUOffloadPolicy() if self._strategy.offload else OffloadPolicy()
        found = fully_shard(
            module, mesh=self._mesh, reshard_after_forward=reshard, mp_policy=policy, offload_policy=offload
        )
        self._count([p for p in module.parameters() if id(p) not in before], 2 if reshard else 1, half)
        return found

    def _count(self, parameters: Sequence[Any], gatherings: int, half: bool) -> None:
        """What a layer of `parameters` sends: their parts as often as they are gathered, and their gradients once."""
        for parameter in parameters:
            width = 2 if half else parameter.element_size()
            self._gathered_bytes += gatherings * parameter.to_local().numel() * width
            if parameter.requires_grad:
                self._gradient_bytes += parameter.nbytes  # also in bf16: they are summed in float32

    def backward(self, last: bool) -> AbstractContextManager[Any]:
        if last != self._synchronised:
            self._fully_sharded.set_requires_gradient_sync(last)
            self._synchronised = last
        self.bytes_exchanged += self._gathered_bytes + (self._gradient_bytes if last else 0)
        return nullcontext()

    def divisor(self, weight: float, batch: MiniBatch, weighted: bool) -> float:
        # gradients are averaged over the workers; times `size` that is their sum
        whole = self.sum([weight])[0] if weighted else batch.global_rows
        return whole / self.size

    def settle(self, learner: Learner) -> None:
        """Have one state of batch normalisation and the like, that of worker 0."""
        for buffer in learner.module.buffers():
            dist.broadcast(buffer, 0)
            self.bytes_exchanged += buffer.nbytes

    def weights(self, learner: Learner) -> dict[str, torch.Tensor]:
        found = {}
        for name, tensor in learner.module.state_dict().items():
            whole = tensor.full_tensor() if is_shared(tensor) else tensor
            if self.rank == 0:
                found[name] = whole.detach().to("cpu", copy=True)
        return found


def _has_tied_weights(module: torch.nn.Module) -> bool:
    return len(list(module.named_parameters(remove_duplicate=False))) > len(list(module.parameters()))
