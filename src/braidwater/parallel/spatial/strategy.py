"""Spatial parallelism: each worker computes a part of every picture's rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from braidwater.engines.base import Engine, Member
from braidwater.errors import UnsupportedError
from braidwater.parallel.base import Data, Strategy, Trained, Training, check_workers, run_gang
from braidwater.parallel.grid import Grid
from braidwater.parallel.learner import Learner
from braidwater.parallel.loop import run_epochs
from braidwater.parallel.model_replica import DATA, SPATIAL, ModelReplica
from braidwater.parallel.spatial import adding, element_wise, sliding  # noqa: F401  (they register what they handle)
from braidwater.parallel.spatial.halo import HaloLayer
from braidwater.parallel.spatial.regions import Regions, Rehearsal
from braidwater.parallel.spatial.rows import ByRows, gathered


@dataclass(frozen=True)
class SpatialParallel(Strategy):
    """Convolution nets whose feature maps are cut into regions of rows, one a worker, with halo exchange.

    Dryden et al. 2019 ("Improving Strong-Scaling of CNN Training by Exploiting Finer-Grained Parallelism", arXiv 1903.06681).
    Equal to one process with the same `batch_size`, batch normalisation included: its statistics are over all regions. Each
    worker holds all weights and 1/workers of the activations; it is for pictures too large for one worker, or batches too
    small to be parted. Convolutions and poolings (any kernel, stride, padding, dilation, groups) send the rows of the halo
    to the workers that need them, near or far, and their gradients back (`predict_halo_bytes`); the weights' gradients are
    averaged as in `AllReduce`. From the first layer that needs whole maps (flatten, a linear head), or where a map has
    fewer rows than there are workers, all workers compute the same; a module without convolutions gains nothing.

    Modules are left as they are: residual connections and functions of `torch.nn.functional` work too.
    """

    name: ClassVar[str] = "spatial"
    exact: ClassVar[bool] = True
    workers: int = 2

    def __post_init__(self) -> None:
        check_workers(self.workers)

    def train(self, training: Training, data: Data, engine: Engine) -> Trained:
        refuse_recompute(training)
        stores = data.for_members()

        def run(member: Member) -> Trained | None:
            replica = SpatialReplica(member, Grid({SPATIAL: member.size}))
            trained = run_epochs(training, stores, replica, strategy=str(self))
            return trained if member.rank == 0 else None

        trained = run_gang(engine, training, self.workers, run)[0]
        assert trained is not None
        return trained


def refuse_recompute(training: Training) -> None:
    """Layers that are computed a second time would do so outside the regions."""
    if training.recompute:
        raise UnsupportedError(
            "SpatialParallel cannot compute layers a second time (recompute): its workers hold a part of the activations "
            "already. Use recompute=False or AllReduce."
        )


class SpatialReplica(ModelReplica):
    """A worker that computes its region of rows."""

    averaged_over = (DATA, SPATIAL)
    talks_in_forward = True

    def __init__(self, member: Member, grid: Grid) -> None:
        super().__init__(member, grid)
        self.regions = Regions(self.talk(SPATIAL)) if grid.size(SPATIAL) > 1 else None

    def learner(self, training: Training, steps: int) -> Learner:
        return SpatialLearner(training, self, steps)

    def wrap(self, module: nn.Module) -> nn.Module:
        self.by_rows = module if self.regions is None else InRegions(module, self.regions)
        return super().wrap(self.by_rows)


class SpatialLearner(Learner):
    """Computes evaluations by rows too."""

    replica: SpatialReplica

    def outputs(self, features: torch.Tensor) -> torch.Tensor:
        return self._forward(self.replica.by_rows, features)


class InRegions(nn.Module):
    """A module whose convolutions work by rows; its output is whole."""

    def __init__(self, module: nn.Module, regions: Regions) -> None:
        super().__init__()
        self.module, self.regions = module, regions

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        with ByRows(self.regions):
            output: torch.Tensor = gathered(self.module(features))
        return output


def halo_layers(module: nn.Module, features: torch.Tensor, workers: int) -> list[HaloLayer]:
    """The layers of `module` that exchange halos when `workers` train it on these rows. One forward pass on a region."""
    rehearsal = Rehearsal(workers)
    InRegions(module, rehearsal)(features)
    return rehearsal.layers
