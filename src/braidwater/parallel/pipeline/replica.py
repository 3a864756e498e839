"""A worker of a pipeline: its stages, and the steps that it takes with the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import fx, nn
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
)

from braidwater.blocks.mini_batches import MiniBatch
from braidwater.engines.base import Member
from braidwater.errors import UnsupportedError
from braidwater.parallel.base import Training
from braidwater.parallel.grid import Grid
from braidwater.parallel.learner import Learner
from braidwater.parallel.mixed_precision import autocast
from braidwater.parallel.model_replica import DATA, PIPELINE
from braidwater.parallel.pipeline.layer_random import drawing
from braidwater.parallel.pipeline.planning import PipelinePlan, full_length, pad_rows
from braidwater.parallel.pipeline.stages import Form, Stage, find_layers, make_stages, trace
from braidwater.parallel.tensor_parallel.layers import gather_state
from braidwater.parallel.tensor_parallel.plan import Plan
from braidwater.parallel.tensor_parallel.strategy import TensorReplica


class PipelineReplica(TensorReplica):
    """A worker that holds some stages of a module, and of their layers its part where the grid parts them too.

    The parameters of other stages keep their names, so that the optimiser's patterns find them, but have no entries.
    """

    def __init__(self, member: Member, grid: Grid, plan: PipelinePlan, parts: Plan | None = None) -> None:
        super().__init__(member, grid, parts or Plan({}, {}))
        self.plan = plan
        self.stage_workers = grid.size(PIPELINE)

    def learner(self, training: Training, steps: int) -> Learner:
        return PipelineLearner(training, self, steps)

    def place(self, module: nn.Module) -> nn.Module:
        self._reference = {name: (tensor.shape, tensor.dtype) for name, tensor in module.state_dict().items()}
        stages = self._cut(module)
        module.eval()
        evaluated = self._cut(module)
        module.train()
        placed = super().place(module)
        self._home = {name: place % self.stage_workers for place, stage in enumerate(stages) for name in stage.tensors}
        for name, parameter in placed.named_parameters():
            if self._home.get(name, 0) != self.grid.place(PIPELINE):
                parameter.data = parameter.data.new_empty(0)
        own = range(self.grid.place(PIPELINE), len(stages), self.stage_workers)
        self.stages = {place: StageModule(placed, stages[place], evaluated[place]) for place in own}
        return placed

    def _cut(self, module: nn.Module) -> list[Stage]:
        layers = find_layers(module, trace(module), self.plan.together)
        random = self.plan.random and module.training
        return make_stages(module, layers, self.plan.begins, self.plan.forms, random=random)

    def wrap(self, module: nn.Module) -> nn.Module:
        return module  # gradients are averaged after the last micro-batch

    def state(self) -> dict[str, Any]:
        drawn = {str(place): stage.drawn for place, stage in self.stages.items()}
        return {"begins": list(self.plan.begins), "drawn": drawn}

    def load_state(self, state: dict[str, Any], learner: Learner) -> None:
        for place, drawn in state["drawn"].items():
            self.stages[int(place)].drawn = drawn

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Over the workers that hold the same stages for other rows."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.data_size > 1 and gradients:
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            dist.all_reduce(flat, group=self.grid.group(DATA))
            self.bytes_exchanged += flat.nbytes
            flat /= self.data_size
            for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def squared_norm(self, parameters: Sequence[nn.Parameter]) -> torch.Tensor:
        total = super().squared_norm(parameters)
        if self.stage_workers > 1:
            dist.all_reduce(total, group=self.grid.group(PIPELINE))
        return total

    def weights(self, learner: Learner) -> dict[str, torch.Tensor]:
        here = self.grid.place(PIPELINE)
        state = learner.module.state_dict()
        own = {name: tensor for name, tensor in state.items() if self._home.get(name, 0) == here}
        found = gather_state(learner.module, own)
        if self.stage_workers == 1:
            return found
        whole = {}
        for name, (shape, dtype) in self._reference.items():
            home = self._home.get(name, 0)
            tensor = found[name] if home == here else torch.empty(shape, dtype=dtype)
            if home != 0 and here == home:
                dist.send(tensor.contiguous(), group=self.grid.group(PIPELINE), group_dst=0)
            elif home != 0 and here == 0:
                dist.recv(tensor, group=self.grid.group(PIPELINE), group_src=home)
            whole[name] = tensor
        return whole if here == 0 else {}


class StageModule(nn.Module):
    """A stage as a module of its own, that shares its layers with the whole. Its outputs are laid out for sending."""

    def __init__(self, whole: nn.Module, training: Stage, evaluation: Stage) -> None:
        super().__init__()
        self.trained = fx.GraphModule(whole, training.graph)
        self.evaluated = fx.GraphModule(whole, evaluation.graph)
        self.inputs, self.outputs = training.inputs, training.outputs
        self.drawn = 0  # micro-batches that it was trained on
        self._whole = (whole,)  # in a tuple it is no submodule
        self._around: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._seeds: tuple[int, ...] | None = None

    def prepare(self, around: Callable[[], AbstractContextManager[Any]], seeds: tuple[int, ...] | None) -> None:
        """Set what is around a forward pass, and what its random numbers (None: it draws none) and the micro-batch's make."""
        self._around, self._seeds = around, seeds

    def forward(self, *inputs: torch.Tensor) -> Any:
        training = self._whole[0].training
        random = nullcontext() if self._seeds is None or not training else drawing(*self._seeds, self.drawn)
        with self._around(), random:
            found = (self.trained if training else self.evaluated)(*inputs)
        self.drawn += training
        return tuple(value.contiguous() for value in found) if isinstance(found, tuple) else found


class PipelineLearner(Learner):
    """Steps and evaluations by torch's pipeline schedules (torch.distributed.pipelining).

    Its buffers have one size: mini-batches are filled up with rows that do not count, and sequences to their full length.
    """

    replica: PipelineReplica

    def __init__(self, training: Training, replica: PipelineReplica, total_steps: int) -> None:
        super().__init__(training, replica, total_steps)
        self.plan = replica.plan
        self.rows = self.plan.micro_rows * self.plan.micro_batches
        group = replica.grid.group(PIPELINE) if replica.stage_workers > 1 else None
        count = replica.stage_workers * self.plan.stages_per_worker
        self._group = group
        self._first, self._last = 0 in replica.stages, count - 1 in replica.stages
        self._last_worker = (count - 1) % replica.stage_workers
        self._total = 0.0
        seeds = (training.seed, replica.data_rank) if self.plan.random else None
        for stage in replica.stages.values():
            stage.prepare(partial(autocast, training.precision, self.device), seeds)
        stages = [
            PipelineStage(
                stage,
                place,
                count,
                self.device,
                input_args=self._examples(stage.inputs),
                output_args=self._examples(stage.outputs or (self.plan.output,)),
                group=group,
            )
            for place, stage in replica.stages.items()
        ]
        self._schedule = _schedule(self.plan, stages, self._loss)
        self._sent = sum(map(self._bytes_sent, replica.stages.values()))

    def _bytes_sent(self, stage: StageModule) -> int:
        """Bytes that a stage hands over in a step: its outputs, and the gradients of its inputs."""
        outputs = [self.plan.forms[name] for name in stage.outputs]
        gradients = [form for form in (self.plan.forms[name] for name in stage.inputs) if form.gradient]
        return self.plan.micro_batches * sum(int(form.nbytes) for form in [*outputs, *gradients])

    def _examples(self, names: Sequence[str]) -> tuple[torch.Tensor, ...]:
        return tuple(self.plan.forms[name].example() for name in names)

    def gradients(
        self,
        features: torch.Tensor,
        target: torch.Tensor,
        weights: torch.Tensor | None,
        divisor: float,
        batch: MiniBatch,
    ) -> float:
        if self.scale is not None:
            divisor /= self.scale.value
        counts = torch.zeros(self.rows, dtype=self.dtype, device=self.device)
        counts[: batch.rows] = 1.0 if weights is None else weights
        self._target, self._counts, self._factor, self._total = pad_rows(target, self.rows), counts, 1 / divisor, 0.0
        self._schedule.step(*self._inputs(features), target=self._numbers(), return_outputs=False)
        self.replica.bytes_exchanged += self._sent
        self.replica.average_gradients(self._parameters)
        return self._told(torch.tensor(self._total, dtype=torch.float64)).item()

    def outputs(self, features: torch.Tensor) -> torch.Tensor:
        found = self._schedule.eval(*self._inputs(features), target=self._numbers())
        form: Form = self.plan.forms[self.plan.output]
        if not self._last:
            found = torch.empty((self.rows, *form.shape[1:]), dtype=form.dtype, device=self.device)
        return self._forward(nn.Identity(), self._told(found)[: len(features)])

    def _inputs(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if not self._first:
            return ()
        (form,) = (self.plan.forms[name] for name in self.replica.stages[0].inputs)
        return (pad_rows(full_length(features, self.training.form, form.shape[1:]), self.rows),)

    def _numbers(self) -> torch.Tensor | None:
        """The schedule cuts targets as it cuts features; numbers of rows find weights too."""
        return torch.arange(self.rows, device=self.device) if self._last else None

    def _told(self, tensor: torch.Tensor) -> torch.Tensor:
        """What the last stage's worker has, on all."""
        if self._group is not None:
            dist.broadcast(tensor, group=self._group, group_src=self._last_worker)
        return tensor

    def _loss(self, output: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """The part of a micro-batch in the loss of the step."""
        if not torch.is_grad_enabled():
            return output.new_zeros(())
        counts = self._counts[numbers]
        losses = self._losses(
            self.training.loss, self._forward(nn.Identity(), output), self._target[numbers], weighted=False
        )
        if losses.ndim == 0:
            raise UnsupportedError(
                "Pipeline needs a loss that gives one number a row; this one gives their mean. Use reduction='none'."
            )
        total = torch.dot(losses, counts.to(losses.dtype))
        self._total += total.item()
        return total * self._factor


def _schedule(plan: PipelinePlan, stages: list[Any], loss: Any) -> Any:
    # losses are sums over rows already
    arguments = {"n_microbatches": plan.micro_batches, "loss_fn": loss, "scale_grads": False}
    if plan.schedule == "gpipe":
        return ScheduleGPipe(stages[0], **arguments)
    if plan.schedule == "1f1b":
        return Schedule1F1B(stages[0], **arguments)
    if plan.schedule == "interleaved":
        return ScheduleInterleaved1F1B(stages, **arguments)
    return ScheduleInterleavedZeroBubble(stages, **arguments)
