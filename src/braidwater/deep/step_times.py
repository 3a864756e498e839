"""Timing a few training steps on made-up rows: what a step costs on this machine, for the planner."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np

from braidwater.blocks.base import Array
from braidwater.blocks.mini_batches import MiniBatch
from braidwater.deep.inputs import InputForm
from braidwater.deep.layers import find_layers
from braidwater.options import current_options
from braidwater.parallel import Training
from braidwater.parallel.base import Replica
from braidwater.parallel.device import torch_threads
from braidwater.parallel.learner import Learner
from braidwater.parallel.loop import own_random_numbers
from braidwater.planner.base import Layer, StepTimes

MOST_SECONDS = 3.0  # for all measurements, unless a single step takes longer than a fraction of that
_PARTS = 10  # of the time that one of them may take
_REPEATS, _MOST = 3, 100  # calls


def measure_steps(
    training: Training, form: InputForm, workers: int | None = None, budget: float = MOST_SECONDS
) -> tuple[StepTimes, tuple[Layer, ...]]:
    """`time_steps` on rows of the type and shape of `form`: numbers from 0 to 1, bytes from 0 to 255, tokens 0."""
    dtype = np.dtype(form.rows.dtype if form.whole is None else form.whole.stored[0].dtype)
    most = 1 if form.tokens else 256
    numbers = np.random.default_rng(0).random((training.batch_size, *form.shape))
    return time_steps(training, (numbers * most if dtype.kind in "iu" else numbers).astype(dtype), workers, budget)


def time_steps(
    training: Training, features: Array, workers: int | None = None, budget: float = MOST_SECONDS
) -> tuple[StepTimes, tuple[Layer, ...]]:
    """Times of steps of `training` on the rows of `features`, the median of some; and its layers with measured shares.

    On as many threads as each of `workers` (all cores, where left out) will have: a step on its part of the rows, and one on
    a quarter of that, which part what a row takes from what a step takes anyway.
    """
    cores = current_options().workers
    count = workers if workers is not None and workers > 1 else cores
    part = max(len(features) // count, 1)
    few = max(part // 4, 1)
    typical = partial(_typical, budget / _PARTS)
    with own_random_numbers(training.seed, 0):
        learner = Learner(training, Replica(), 1)
        step = partial(_step, learner, features)
        with torch_threads(cores // count):
            large, small = typical(partial(step, part)), typical(partial(step, few))
            update = typical(learner.optimizer.step)
            learner.module.eval()
            layers = find_layers(
                learner.module, learner.tensors(_batch(training, features[:part]))[0], timed=True
            ).layers
            learner.module.train()
        with torch_threads(cores):
            alone = typical(partial(step, len(features)))
    row = max(large - small, 0.0) / (part - few) if part > few else 0.0
    return StepTimes(max(large - update - part * row, 0.0), row, update, alone), layers


def _step(learner: Learner, features: Array, rows: int) -> None:
    learner.step(_batch(learner.training, features[:rows]), 0, 0)


def _batch(training: Training, features: Array) -> MiniBatch:
    """A mini-batch of these features, each label 0."""
    rows = len(features)
    labels = np.zeros(rows, np.uint8 if training.target == "class" else np.float64)
    return MiniBatch(0, rows, rows, features, labels, None)


def _typical(budget: float, function: Callable[[], object]) -> float:
    """Seconds of the median call, after one that does not count, of as many as `budget` seconds allow."""
    function()
    taken: list[float] = []
    begun = time.perf_counter()
    while len(taken) < _REPEATS or (time.perf_counter() - begun < budget and len(taken) < _MOST):
        started = time.perf_counter()
        function()
        taken.append(time.perf_counter() - started)
        if time.perf_counter() - begun > 2 * budget:
            break
    return median(taken)
