"""Tensor parallelism: each worker holds a part of every large layer, and all compute on the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from braidwater.engines.base import Engine, Member
from braidwater.parallel.base import Data, Strategy, Trained, Training, check_workers, run_gang
from braidwater.parallel.grid import Grid
from braidwater.parallel.learner import Learner
from braidwater.parallel.loop import run_epochs
from braidwater.parallel.model_replica import TENSOR, ModelReplica
from braidwater.parallel.talk import Talk
from braidwater.parallel.tensor_parallel.layers import (
    ColumnLinear,
    HeadsAttention,
    PartedDropout,
    RowEmbedding,
    RowLinear,
    gather_state,
    sharded_parameters,
)
from braidwater.parallel.tensor_parallel.plan import Plan, Style, make_plan


@dataclass(frozen=True)
class TensorParallel(Strategy):
    """Layers parted over the workers by columns and rows, heads of attention, and rows of embeddings.

    Shoeybi et al. 2019 ("Megatron-LM", arXiv 1909.08053). Equal to one process with the same `batch_size`; each worker holds
    ``1 / workers`` of the parted weights, of their gradients and of the optimiser's state. A pair of linear layers costs an
    all-reduce of (rows, outputs) numbers forward and one of (rows, inputs) backward; so does an attention.

    `plan` is "auto" (see `make_plan`), or a style for each pattern of layers' names, such as
    ``{"blocks.*.up": "column", "blocks.*.down": "row"}``; other layers stay whole:

    - "column": a linear layer by its outputs, which stay parted: only element-wise layers and a "row" layer may follow (or
      an attention of your own that works on whole heads, ``unflatten(-1, (-1, head_width))``);
    - "row": a linear layer by its inputs, which come from a "column" layer;
    - "single": a linear layer on its own, whole inputs and outputs, by whichever are more;
    - "embedding": `nn.Embedding` by the rows of its table;
    - "heads": `nn.MultiheadAttention` by its heads.

    Sizes need not divide evenly. Optimisers must work on each number alone, as SGD and Adam do.
    """

    name: ClassVar[str] = "tensor_parallel"
    exact: ClassVar[bool] = True
    workers: int = 2
    plan: Literal["auto"] | Mapping[str, Style] = "auto"

    def __post_init__(self) -> None:
        check_workers(self.workers)

    def __hash__(self) -> int:
        return hash((self.workers, str(self.plan)))

    def train(self, training: Training, data: Data, engine: Engine) -> Trained:
        plan = make_plan(training.module, self.plan, self.workers)
        stores = data.for_members()

        def run(member: Member) -> Trained | None:
            replica = TensorReplica(member, Grid({TENSOR: member.size}), plan)
            trained = run_epochs(training, stores, replica, strategy=str(self))
            return trained if member.rank == 0 else None

        trained = run_gang(engine, training, self.workers, run)[0]
        assert trained is not None
        return trained


class TensorReplica(ModelReplica):
    """A worker that holds its part of the layers of a plan."""

    replicated = False
    talks_in_forward = True

    def __init__(self, member: Member, grid: Grid, plan: Plan) -> None:
        super().__init__(member, grid)
        self._plan = plan

    def place(self, module: nn.Module) -> nn.Module:
        if self.grid.size(TENSOR) > 1:
            module = part_layers(module, self._plan, self.talk(TENSOR))
        self._sharded = sharded_parameters(module)
        return module

    def squared_norm(self, parameters: Sequence[nn.Parameter]) -> torch.Tensor:
        first = self.grid.place(TENSOR) == 0
        own = [p for p in parameters if first or p in self._sharded]
        total = super().squared_norm(own)
        return self.talk(TENSOR).sum(total) if self.grid.size(TENSOR) > 1 else total

    def weights(self, learner: Learner) -> dict[str, torch.Tensor]:
        return gather_state(learner.module, learner.module.state_dict())


def part_layers(module: nn.Module, plan: Plan, talk: Talk) -> nn.Module:
    """Put this worker's part of each layer in its place. Parameters keep their names; what other workers hold is freed."""
    for name, width in plan.dropouts.items():
        layer = module.get_submodule(name)
        assert isinstance(layer, nn.Dropout)
        _replace(module, name, PartedDropout(layer, talk, width))
    for name, style in plan.styles.items():
        layer = module.get_submodule(name)
        parted = _parted(layer, style, talk)
        parted.train(layer.training)
        if name == "":
            return parted
        _replace(module, name, parted)
    return module


def _parted(layer: nn.Module, style: Style, talk: Talk) -> nn.Module:
    if isinstance(layer, nn.Linear):
        if style == "column":
            return ColumnLinear(layer, talk)
        if style == "row":
            return RowLinear(layer, talk)
        if layer.in_features >= layer.out_features:
            return RowLinear(layer, talk, scatter=True)
        return ColumnLinear(layer, talk, gather=True)
    if isinstance(layer, nn.Embedding):
        return RowEmbedding(layer, talk)
    assert isinstance(layer, nn.MultiheadAttention)
    return HeadsAttention(layer, talk)


def _replace(module: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, new)
