"""The operations of a recorded step as calls without arguments: every tensor of it has its place before the first one runs.

Half of what an operation of a small net costs is spent around its kernel: the memory of the result, the arguments, views that
are made again each step. Here results are written into memory that stays (``out=``), views of such memory are made once, and
the rows of a step are slipped under two tensors that all calls know (21-32-2, 200 rows: 48 us instead of 78 for calls that
make their results).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import BuiltinFunctionType
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_leaves, tree_map

Found = tuple[Any, ...]  # the mean loss, and the gradient of each parameter: None where it has none

_MOST_BYTES = 2**25  # of what one step keeps: where more is moved, bookkeeping is nothing
_aten = torch.ops.aten
# what torch's own kernel calls, where only that can write into given memory
_KERNELS: dict[Any, tuple[Any, tuple[Any, ...]]] = {_aten.relu.default: (_aten.clamp_min.default, (0,))}


class Call(NamedTuple):
    """An operation that ran: what it was given, and what it gave."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    found: Any


class Replay:
    """The recorded `calls` as a function of features and target, which gives what was `wanted` of them.

    What it gives is written over by the next call. It also follows from `weights`, where they lie in memory now. A `ValueError`
    where the calls are no such function: where one changes a tensor, draws random numbers, or reads what is not given.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        features: torch.Tensor,
        target: torch.Tensor,
        weights: Sequence[torch.Tensor],
        wanted: Sequence[torch.Tensor],
    ) -> None:
        self._features, self._target = _shown(features), _shown(target)
        self._known: dict[Any, torch.Tensor] = {_key(weight): weight.detach() for weight in weights}
        self._known |= {_key(features): self._features, _key(target): self._target}
        self._moving = {id(self._features), id(self._target)}
        self._calls: list[Callable[[], object]] = []
        self.bytes = 0  # of all that its operations make
        given = {_memory(tensor) for tensor in self._known.values()}
        for call in calls:
            if call.function._schema.is_mutable or torch.Tag.nondeterministic_seeded in call.function.tags:
                raise ValueError(f"{call.function} changes a tensor, or draws random numbers.")
        with torch.no_grad():
            for call in _needed(calls, wanted):
                self._add(call)
        self._found = tuple(self._own(tensor) for tensor in wanted)
        memories = {_memory(tensor) for tensor in self._found}
        if len(memories) < len(self._found) or memories & given:
            raise ValueError("Two of the gradients are one tensor, or are what the step was given.")

    def __call__(self, features: torch.Tensor, target: torch.Tensor) -> Found:
        with torch.inference_mode():
            self._features.set_(features)
            self._target.set_(target)
            for call in self._calls:
                call()
        return self._found

    def _own(self, value: Any) -> Any:
        """The tensor of the replay that stands for a recorded one."""
        if not isinstance(value, torch.Tensor):
            return value
        if _key(value) not in self._known:
            raise ValueError("A step reads a tensor that it was not given.")
        return self._known[_key(value)]

    def _add(self, call: Call) -> None:
        args, kwargs = tree_map(self._own, (call.args, call.kwargs))
        moving = any(id(value) in self._moving for value in tree_leaves((args, kwargs)))
        found = _tensors(call.found)
        self.bytes += sum(tensor.nbytes for tensor in found)
        if self.bytes > _MOST_BYTES:
            raise ValueError("A step keeps too much.")
        if _is_view(call.function) and not moving:
            own = [call.function(*args, **kwargs)]
        elif (writing := _writing(call, args, kwargs)) is not None:
            own, run = writing
            self._run(run)
        else:
            own = [_shown(tensor) for tensor in found]
            self._run(partial(_put, own, partial(call.function._op, *args, **kwargs)))
            self._moving |= {id(tensor) for tensor in own}
        for tensor, ours in zip(found, own, strict=True):
            self._known.setdefault(_key(tensor), ours)

    def _run(self, call: Callable[[], object]) -> None:
        call()
        self._calls.append(call)


def _needed(calls: Sequence[Call], wanted: Iterable[torch.Tensor]) -> list[Call]:
    """The calls that something `wanted` follows from."""
    keys = {_key(tensor) for tensor in wanted}
    found = []
    for call in reversed(calls):
        given = {_key(tensor) for tensor in _tensors((call.args, call.kwargs))}
        made = {_key(tensor) for tensor in _tensors(call.found)} - given  # what gives back its argument makes nothing
        if made & keys:
            keys |= given
            found.append(call)
    return found[::-1]


def _writing(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[torch.Tensor], Any] | None:
    """The operation as a call that writes into tensors made for it; None where torch has no kernel that does."""
    function, more = _KERNELS.get(call.function, (call.function, ()))
    into = None if _is_view(function) else _into(function)
    if into is None:
        return None
    places = [torch.empty_strided(one.shape, one.stride(), dtype=one.dtype) for one in _tensors(call.found)]
    names = [argument.name for argument in into._schema.arguments if argument.is_out]
    out = dict(zip(names, places, strict=True))
    quick = getattr(torch, into._schema.name.removeprefix("aten::"), None)
    if isinstance(quick, BuiltinFunctionType) and names == ["out"]:  # reads its arguments in half the time
        return places, partial(quick, *args, *more, **kwargs, **out)
    return places, partial(into._op, *args, *more, **kwargs, **out)


def _into(function: Any) -> Any:
    """The form of an operation that writes into given memory, where this processor's kernel does so by itself."""
    takes = [(argument.name, str(argument.type)) for argument in function._schema.arguments]
    packet = function.overloadpacket
    for other in (getattr(packet, name) for name in packet.overloads()):
        arguments = other._schema.arguments
        if [(one.name, str(one.type)) for one in arguments if not one.is_out] == takes and len(arguments) > len(takes):
            return other if torch._C._dispatch_has_kernel_for_dispatch_key(other.name(), "CPU") else None
    return None


def _shown(tensor: torch.Tensor) -> Any:
    """A tensor of the same memory, which can be let stand for other memory: torch does not declare its ``set_``."""
    place: Any = tensor.detach().new_empty(0)
    return place.set_(tensor.detach())


def _put(places: Sequence[Any], run: Callable[[], Any]) -> None:
    """Let each place stand for a tensor that was made anew."""
    for place, tensor in zip(places, _tensors(run()), strict=True):
        place.set_(tensor)


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _is_view(function: Any) -> bool:
    return any(found.alias_info is not None for found in function._schema.returns)


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _key(tensor: torch.Tensor) -> tuple[Any, ...]:
    """What tells a tensor from all others that are alive; autograd hands the same one over as several objects."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
