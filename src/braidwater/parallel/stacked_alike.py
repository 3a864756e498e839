"""Which trainings can be one stack: what they must have in common, and a look at whether the stack says the same."""

from __future__ import annotations

import torch

from braidwater.parallel.base import Training
from braidwater.parallel.mixed_precision import weights_dtype
from braidwater.parallel.stacked import Stack
from braidwater.parallel.stacked_optimizer import why_not_stacked

# of a training those that a stack has only one of
_COMMON = ("batch_size", "precision", "target", "input_scale", "loss")
_PROBE_ROWS = 3
_CLOSE = 1e-4


def why_alone(training: Training) -> str:
    """Why a training cannot be in any stack, as far as its settings tell; empty where they say nothing against it."""
    module = training.module
    told = {
        f"precision {training.precision}": training.precision not in ("float32", "float64"),
        "it keeps checkpoints": training.checkpoint is not None,
        "it accumulates gradients": training.accumulate > 1,
        "it augments its rows": bool(training.augmentations),
        "it computes activations again": bool(training.recompute),
        "it goes back after a loss that is not finite": training.max_rollbacks > 0,
        "it draws histograms or a profile": training.histograms or training.profile is not None,
        "its rows are sequences": training.form.pad is not None,
        "it is trained on a GPU": training.device == "cuda",
        "its module keeps statistics beside the weights": any(True for _ in module.buffers()),
        "its module draws random numbers": any(
            getattr(m, "p", 0) for m in module.modules() if "Dropout" in type(m).__name__
        ),
        "some of its weights are frozen": not all(p.requires_grad for p in module.parameters()),
    }
    reason = next((reason for reason, holds in told.items() if holds), "")
    return reason or why_not_stacked(training.optimizer(module))


def why_apart(first: Training, other: Training, features: tuple[int, ...]) -> str:
    """Why two trainings over the same rows, each of which could be in a stack, cannot be in one; empty where they can.

    `features` is the shape of a row of their input.
    """
    shapes = [[(name, p.shape) for name, p in t.module.named_parameters()] for t in (first, other)]
    if shapes[0] != shapes[1] or str(first.module) != str(other.module):
        return "its architecture is another"
    for name in _COMMON:
        if getattr(first, name) != getattr(other, name):
            return f"its {name} is another"
    one, two = first.optimizer(first.module), other.optimizer(other.module)
    if type(one) is not type(two):
        return f"its optimizer is {type(two).__name__}, not {type(one).__name__}"
    return why_other_outputs([first, other], features)


def why_other_outputs(trainings: list[Training], features: tuple[int, ...]) -> str:
    """Compare a stack's outputs with those of each module on a few rows: a module may hold more than its weights."""
    dtype = weights_dtype(trainings[0].precision)
    rows = torch.linspace(-1, 1, _PROBE_ROWS * _numbers(features), dtype=dtype).reshape(_PROBE_ROWS, *features)
    modules = [training.module for training in trainings]
    before = [module.training for module in modules]
    state = torch.get_rng_state()
    try:
        stack = Stack([module.to(dtype) for module in modules])
        stack.train(True)
        with torch.no_grad():
            together = stack.outputs(stack.shared(rows))
            apart = torch.stack([module.train()(rows) for module in modules])
    except Exception as error:  # whatever a module may raise inside vmap: it is trained alone then
        return f"its module cannot be stacked ({type(error).__name__})"
    finally:
        torch.set_rng_state(state)
        for module, mode in zip(modules, before, strict=True):
            module.train(mode)
    return "" if torch.allclose(together, apart, _CLOSE, _CLOSE) else "its module holds more than weights"


def _numbers(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
