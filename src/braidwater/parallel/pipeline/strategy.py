"""Pipeline parallelism: each worker holds some consecutive layers, and micro-batches pass from one to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from braidwater.engines.base import Engine, Member
from braidwater.errors import OptionError
from braidwater.parallel.base import Data, Strategy, Trained, Training, check_workers, run_gang
from braidwater.parallel.grid import Grid
from braidwater.parallel.loop import run_epochs
from braidwater.parallel.model_replica import PIPELINE
from braidwater.parallel.pipeline.bubble import SCHEDULES, Schedule
from braidwater.parallel.pipeline.planning import PipelinePlan, plan_pipeline
from braidwater.parallel.pipeline.replica import PipelineReplica


@dataclass(frozen=True)
class Pipeline(Strategy):
    """Layers in stages, one or more a worker; the rows of a step pass through them as `micro_batches`.

    Equal to one process with the same `batch_size`. Each worker holds the weights of its stages, their gradients and
    optimiser state, and sends a micro-batch's activations to the next worker and gets their gradients back; it is idle for
    the share of a step that `predict_bubble` tells. Batch normalisation sees one micro-batch, filled up to the size of the
    others with copies of its first row.

    `schedule` says in which order a worker takes forward and backward passes: all forward first ("gpipe", Huang et al. 2019,
    arXiv 1811.06965); one forward, one backward, which holds fewer activations at a time ("1f1b", Harlap et al. 2018, arXiv
    1806.03377); the same with `stages_per_worker` stages that lie apart ("interleaved", Narayanan et al. 2021, arXiv
    2104.04473); or with the gradients of weights put where a worker would wait ("zero_bubble", Qi et al. 2023, arXiv
    2401.10241). A layer's random numbers depend on the seed, the micro-batch and the layer, not on where it is cut.

    `split` is "auto": the time of each layer is measured on a micro-batch before the workers start, and the slowest stage
    made as fast as possible. Or it names the layers with which the stages after the first begin. The module is
    `nn.Sequential`, or its forward can be traced by torch.fx, or it has a method ``pipeline_stages()`` that names its
    submodules in the order in which they follow each other.
    """

    name: ClassVar[str] = "pipeline"
    exact: ClassVar[bool] = True
    workers: int = 2
    micro_batches: int = 4
    schedule: Schedule = "1f1b"
    split: Literal["auto"] | Sequence[str] = "auto"
    stages_per_worker: int | None = None

    def __post_init__(self) -> None:
        check_workers(self.workers)
        if self.schedule not in SCHEDULES:
            raise OptionError("schedule", self.schedule, f"one of {', '.join(SCHEDULES)}")
        if isinstance(self.split, str) and self.split != "auto":
            raise OptionError("split", self.split, "'auto' or a list of layers' names")
        if not isinstance(self.split, str):
            object.__setattr__(self, "split", tuple(self.split))
        if self.micro_batches < 1:
            raise OptionError("micro_batches", self.micro_batches, "at least 1")
        self._check_schedule()

    def _check_schedule(self) -> None:
        single = self.schedule in ("gpipe", "1f1b")
        if self.stages_per_worker is None:
            object.__setattr__(self, "stages_per_worker", 2 if self.schedule == "interleaved" else 1)
        assert self.stages_per_worker is not None
        if self.stages_per_worker < 1 or (single and self.stages_per_worker != 1):
            allowed = "1 for this schedule; 'interleaved' and 'zero_bubble' take more" if single else "at least 1"
            raise OptionError("stages_per_worker", self.stages_per_worker, allowed)
        if self.schedule == "1f1b" and self.micro_batches < self.workers:
            raise OptionError("micro_batches", self.micro_batches, f"at least the {self.workers} stages for '1f1b'")
        rounds = max(1, self.micro_batches // self.workers)
        if not single and self.micro_batches % rounds:
            raise OptionError(
                "micro_batches", self.micro_batches, f"a multiple of the {self.workers} workers for {self.schedule!r}"
            )

    def plan(self, training: Training, data: Data, data_workers: int = 1, together: Sequence[str] = ()) -> PipelinePlan:
        """The stages and the seconds of each layer. Runs the module on a micro-batch in this process."""
        assert self.stages_per_worker is not None
        return plan_pipeline(
            training,
            data,
            workers=self.workers,
            micro_batches=self.micro_batches,
            schedule=self.schedule,
            stages_per_worker=self.stages_per_worker,
            split=self.split,
            data_workers=data_workers,
            together=together,
        )

    def train(self, training: Training, data: Data, engine: Engine) -> Trained:
        plan = self.plan(training, data)
        stores = data.for_members()

        def run(member: Member) -> Trained | None:
            replica = PipelineReplica(member, Grid({PIPELINE: member.size}), plan)
            trained = run_epochs(training, stores, replica, strategy=str(self))
            return trained if member.rank == 0 else None

        trained = run_gang(engine, training, self.workers, run)[0]
        assert trained is not None
        return trained
