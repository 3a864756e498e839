"""Combinations: data parallelism over groups of workers that hold the parts of one module."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from braidwater.engines.base import Engine, Member
from braidwater.errors import OptionError, UnsupportedError
from braidwater.parallel.base import Data, Strategy, Trained, Training, run_gang
from braidwater.parallel.grid import Grid
from braidwater.parallel.loop import run_epochs
from braidwater.parallel.model_replica import AXES, DATA, PIPELINE, SPATIAL, TENSOR, ModelReplica
from braidwater.parallel.pipeline.planning import PipelinePlan
from braidwater.parallel.pipeline.replica import PipelineReplica
from braidwater.parallel.pipeline.strategy import Pipeline
from braidwater.parallel.spatial.strategy import SpatialParallel, SpatialReplica, refuse_recompute
from braidwater.parallel.tensor_parallel.plan import Plan, kept_together, make_plan
from braidwater.parallel.tensor_parallel.strategy import TensorParallel, TensorReplica


@dataclass(frozen=True)
class Mesh(Strategy):
    """Workers as a grid of data x pipeline x spatial x tensor: each combination of places is a worker.

    Along `data` the workers have rows of their own, and their gradients are averaged in every step, as in `AllReduce`; along
    the other axes they hold the parts of one module, as in the strategies of these names, which take the place of a number
    where they need options::

        Mesh(data=2, tensor=2)
        Mesh(data=2, pipeline=Pipeline(2, micro_batches=8, schedule="zero_bubble"), tensor=TensorParallel(2, plan={...}))

    Equal to one process with the same `batch_size`. Ranks run fastest along `tensor`, then `spatial`, `pipeline` and `data`,
    so that workers that talk most are near each other. `spatial` goes with `data` only.
    """

    name: ClassVar[str] = "mesh"
    exact: ClassVar[bool] = True
    data: int = 1
    pipeline: int | Pipeline = 1
    spatial: int | SpatialParallel = 1
    tensor: int | TensorParallel = 1

    def __post_init__(self) -> None:
        for axis, kind in ((DATA, int), (PIPELINE, Pipeline), (SPATIAL, SpatialParallel), (TENSOR, TensorParallel)):
            value = getattr(self, axis)
            if not (isinstance(value, int) and value >= 1) and (kind is int or not isinstance(value, kind)):
                raise OptionError(
                    axis, value, f"a number of workers from 1 on{'' if kind is int else f', or {kind.__name__}'}"
                )
        if self._sizes[SPATIAL] > 1 and self._sizes[PIPELINE] * self._sizes[TENSOR] > 1:
            raise UnsupportedError(
                "Mesh cannot cut pictures into regions and their layers into stages or parts at a time. Use spatial with data "
                "only, or pipeline and tensor."
            )

    @property
    def workers(self) -> int:  # type: ignore[override]
        return math.prod(self._sizes.values())

    @property
    def _sizes(self) -> dict[str, int]:
        found = {axis: getattr(self, axis) for axis in AXES}
        return {axis: value if isinstance(value, int) else value.workers for axis, value in found.items()}

    def train(self, training: Training, data: Data, engine: Engine) -> Trained:
        parts = self._parts(training)
        stages = self._stages(training, data, parts)
        if self._sizes[SPATIAL] > 1:
            refuse_recompute(training)
        stores, sizes = data.for_members(), self._sizes

        def run(member: Member) -> Trained | None:
            replica = make_replica(member, Grid(sizes), parts, stages)
            trained = run_epochs(training, stores, replica, strategy=str(self))
            return trained if member.rank == 0 else None

        trained = run_gang(engine, training, self.workers, run)[0]
        assert trained is not None
        return trained

    def _parts(self, training: Training) -> Plan | None:
        if self._sizes[TENSOR] == 1:
            return None
        wanted = "auto" if isinstance(self.tensor, int) else self.tensor.plan
        return make_plan(training.module, wanted, self._sizes[TENSOR])

    def _stages(self, training: Training, data: Data, parts: Plan | None) -> PipelinePlan | None:
        if self._sizes[PIPELINE] == 1:
            return None
        pipeline = Pipeline(self.pipeline) if isinstance(self.pipeline, int) else self.pipeline
        together = kept_together(training.module, parts) if parts else ()
        return pipeline.plan(training, data, self.data, together)


def make_replica(member: Member, grid: Grid, parts: Plan | None, stages: PipelinePlan | None) -> ModelReplica:
    """The replica of a worker on the grid."""
    if stages is not None:
        return PipelineReplica(member, grid, stages, parts)
    if grid.size(SPATIAL) > 1:
        return SpatialReplica(member, grid)
    return TensorReplica(member, grid, parts or Plan({}, {}))
