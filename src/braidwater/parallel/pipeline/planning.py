"""What is decided about a pipeline before its workers start."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import fx

from braidwater.blocks.windows import RowForm
from braidwater.errors import OptionError, UnsupportedError
from braidwater.parallel.base import Data, Replica, Training
from braidwater.parallel.checkpoint import Checkpoints
from braidwater.parallel.device import torch_threads
from braidwater.parallel.learner import Learner
from braidwater.parallel.loop import mini_batches, own_random_numbers
from braidwater.parallel.mixed_precision import autocast
from braidwater.parallel.pipeline.bubble import Schedule
from braidwater.parallel.pipeline.split import balanced, time_nodes
from braidwater.parallel.pipeline.stages import Layers, find_layers, forms_of, make_stages, named_begins, trace


@dataclass(frozen=True)
class PipelinePlan:
    """Where the stages begin (numbers of layers), the rows of a micro-batch, and the forms of what crosses the cuts.

    `seconds` are those of each layer, forward and backward for one micro-batch; `output` is the name of the module's output
    among the forms; `random` whether the module draws random numbers; `together` are the layers that are not cut apart from
    what is before them.
    """

    names: tuple[str, ...]
    seconds: tuple[float, ...]
    begins: tuple[int, ...]
    micro_rows: int
    micro_batches: int
    schedule: Schedule
    stages_per_worker: int
    forms: dict[str, Any]
    output: str
    random: bool
    together: frozenset[str] = frozenset()

    @property
    def stage_seconds(self) -> list[float]:
        """Seconds of each stage for one micro-batch."""
        bounds = [0, *self.begins, len(self.names)]
        return [sum(self.seconds[begin:end]) for begin, end in pairwise(bounds)]


def plan_pipeline(
    training: Training,
    data: Data,
    *,
    workers: int,
    micro_batches: int,
    schedule: Schedule,
    stages_per_worker: int,
    split: Literal["auto"] | Sequence[str],
    data_workers: int = 1,
    together: Collection[str] = (),
) -> PipelinePlan:
    """Cut the module of a training into stages; by the time that layers take on a real micro-batch, where `split` is "auto"."""
    if training.accumulate != 1:
        raise OptionError("accumulate", training.accumulate, "1 for Pipeline, whose micro_batches are such pieces")
    rows = _most_rows(training, data, data_workers)
    if rows < micro_batches:
        raise OptionError("micro_batches", micro_batches, f"at most {rows}, the rows of a worker in a step")
    micro_rows = -(-rows // micro_batches)
    stages = workers * stages_per_worker
    with own_random_numbers(training.seed, 0), torch_threads((os.cpu_count() or 1) // (workers * data_workers)):
        learner = Learner(training, Replica(), 1)
        layers = find_layers(learner.module, trace(learner.module), together)
        if len(layers.names) < stages:
            raise OptionError(
                "workers" if stages == workers else "stages",
                stages,
                f"at most {len(layers.names)}: so many layers with parameters has the module ({', '.join(layers.names)})",
            )
        features = learner.tensors(next(mini_batches(training, data, Replica()).epoch(0)))[0]
        if training.form.pad is not None:
            stored = next(column for column in data.rows.schema.columns if column.name == training.form.whole)
            features = full_length(features, training.form, stored.shape)
        traced = fx.GraphModule(learner.module, layers.graph)
        with autocast(training.precision, learner.device):
            before = torch.get_rng_state()
            seconds, values = time_nodes(traced, pad_rows(features[:micro_rows], micro_rows))
            random = not torch.equal(before, torch.get_rng_state())
    costs = [sum(seconds[node.name] for node in nodes) for nodes in layers.nodes]
    if split == "auto":
        begins = _remembered_begins(training) or balanced(costs, stages)
    else:
        begins = named_begins(layers, split, stages)
    forms = forms_of(values)
    make_stages(learner.module, layers, begins, forms)  # refuses what cannot be cut there
    return PipelinePlan(
        layers.names,
        tuple(costs),
        tuple(begins),
        micro_rows,
        micro_batches,
        schedule,
        stages_per_worker,
        forms,
        _output(layers),
        random,
        frozenset(together),
    )


def _remembered_begins(training: Training) -> list[int] | None:
    """Where the stages began that the training's newest checkpoint is of: its workers have written those."""
    if training.checkpoint is None:
        return None
    found = Checkpoints(training.checkpoint, {}).newest()
    remembered = None if found is None else found.member(0).values["replica"]
    return remembered.get("begins") if isinstance(remembered, dict) else None


def pad_rows(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """`rows` rows: the first is repeated, as a row that must not count still has to be one that the module understands."""
    missing = rows - len(tensor)
    return tensor if missing == 0 else torch.cat([tensor, tensor[:1].expand(missing, *tensor.shape[1:])])


def full_length(features: torch.Tensor, form: RowForm, shape: Sequence[int]) -> torch.Tensor:
    """Sequences that were cut behind the longest of a mini-batch, as they are stored: rows of `shape`."""
    if form.pad is None:
        return features
    return torch.nn.functional.pad(features, (0, shape[0] - features.shape[1]), value=form.pad)


def _output(layers: Layers) -> str:
    output = next(node for node in layers.graph.nodes if node.op == "output")
    found = output.args[0]
    if not isinstance(found, fx.Node):
        raise UnsupportedError("Pipeline needs a module whose output is one tensor; this one gives several.")
    return found.name


def _most_rows(training: Training, data: Data, data_workers: int) -> int:
    """The most rows of a worker in a step, of training or validation."""
    stores = [data.rows] if data.validation is None else [data.rows, data.validation]
    steps = [-(-store.rows // training.batch_size) for store in stores]
    return max(-(-store.rows // (count * data_workers)) for store, count in zip(stores, steps, strict=True))
