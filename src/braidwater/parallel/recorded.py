"""Loss and gradients of a small net as the operations that autograd ran, one after another, without autograd.

Of a step of a small net most time is bookkeeping: calls of modules, nodes of a graph that is built to be walked once. Here the
operations of one step, forward and backward, are written down below autograd and made a `Replay`, which runs the same kernels
on the same numbers: the bits are those of autograd, in a fifth of the time (21-32-2, 200 rows: 0.05 ms instead of 0.24; half of
these 0.05 is what the arithmetic takes).

What a net does must follow from its weights, its input and its shape alone, so this is for layers of torch and our own
modules without statistics, random numbers and hooks. A shape is recorded when it has been seen some twenty times (a recording
takes as long as ten steps), and its replay is believed once it has said the same as autograd about other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from braidwater.parallel.device import not_shared_out
from braidwater.parallel.replay import Call, Found, Replay

Mean = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

WORTH_STEPS = 20  # of a shape before it is recorded
_MOST_SHAPES = 8
_MOST_OPERATIONS = 2e8  # of a step, about 5 ms: what can be saved is a fifth of a millisecond
# of a step: what its largest product of matrices takes (10 us) is not worth waking a thread, and on a busy machine that
# may come 100 ms late
_SMALL_OPERATIONS, _SMALL_BYTES = 2e6, 2**20
_PLAIN = ("torch.nn.modules.", "braidwater.deep.modules")


@dataclass
class _Shape:
    """What is known of the steps of one shape."""

    small: bool
    seen: int = 0
    replay: Replay | None = None
    believed: bool = False
    refused: bool = False


class Recorded:
    """Gradients of ``mean(features, target)`` with respect to `parameters`; the first steps, and where nothing can be recorded,
    by autograd. `frozen` are the other weights that it follows from."""

    def __init__(
        self, mean: Mean, parameters: Sequence[torch.nn.Parameter], frozen: Sequence[torch.nn.Parameter] = ()
    ) -> None:
        self._mean = mean
        self._parameters = list(parameters)
        self._weights = [*parameters, *frozen]
        self._one = torch.ones((), dtype=self._parameters[0].dtype)  # the gradient of the loss
        self._places: list[int] = []
        self._shapes: dict[tuple[torch.Size, torch.Size], _Shape] = {}
        self._numbers = sum(weight.numel() for weight in self._weights)

    def __call__(self, features: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Put the gradients into the parameters; the mean loss. Both are written over by the next call."""
        known = self._shape(features, target)
        if known is not None and known.believed:
            found = self._replayed(known, features, target)
        elif known is None or known.refused or known.seen < WORTH_STEPS:
            found = self._by_autograd(features, target)
        else:
            found = self._looked_at(known, features, target)
        for parameter, gradient in zip(self._parameters, found[1:], strict=True):
            parameter.grad = gradient
        loss: torch.Tensor = found[0]
        return loss

    def _shape(self, features: torch.Tensor, target: torch.Tensor) -> _Shape | None:
        places = [weight.data_ptr() for weight in self._weights]
        if places != self._places:  # weights that now lie elsewhere: nothing that was recorded reads them
            self._places = places
            self._shapes.clear()
        key = (features.shape, target.shape)
        known = self._shapes.get(key)
        if known is None:
            operations = 6 * len(features) * self._numbers
            if len(self._shapes) == _MOST_SHAPES or operations > _MOST_OPERATIONS:
                return None
            known = self._shapes[key] = _Shape(operations < _SMALL_OPERATIONS)
        known.seen += 1
        return known

    def _by_autograd(self, features: torch.Tensor, target: torch.Tensor) -> Found:
        loss = self._mean(features, target)
        one = self._one if loss.dtype == self._one.dtype else None
        return loss.detach(), *torch.autograd.grad(loss, self._parameters, one, allow_unused=True)

    def _replayed(self, known: _Shape, features: torch.Tensor, target: torch.Tensor) -> Found:
        assert known.replay is not None
        try:
            with not_shared_out(known.small and known.replay.bytes < _SMALL_BYTES):
                return known.replay(features, target)
        except IndexError:  # a class that the net has no output for: the loss itself says so
            return self._by_autograd(features, target)

    def _looked_at(self, known: _Shape, features: torch.Tensor, target: torch.Tensor) -> Found:
        """Record a step, or compare the next one with what was recorded."""
        if known.replay is None:
            with _Recorder() as recorder:
                found = self._by_autograd(features, target)
            try:
                known.replay = Replay(recorder.calls, features, target, [*self._weights, self._one], found)
            except (ValueError, TypeError, AttributeError):
                known.refused = True
            return found
        found = self._by_autograd(features, target)
        known.believed = all(map(torch.equal, found, self._replayed(known, features, target)))
        known.refused = not known.believed
        return found


def is_plain(module: torch.nn.Module) -> bool:
    """Whether what a module does follows from its weights and its input alone, as far as can be told without running it."""
    return all(
        type(part).__module__.startswith(_PLAIN) and "forward" not in vars(part)
        and not (part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks)
        for part in module.modules()
    ) and all(
        type(parameter) is torch.nn.Parameter and parameter.device.type == "cpu"
        and not (parameter._backward_hooks or parameter._post_accumulate_grad_hooks)
        for parameter in module.parameters()
    )  # fmt: skip


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down every operation that runs below autograd, and keeps its tensors: no memory is used twice meanwhile."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        self.calls.append(Call(function, args, kwargs or {}, found))
        return found
