"""Operations that work on each number of a picture alone, or on each of its rows."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.nn import functional
from torch.utils._pytree import tree_flatten, tree_map

from braidwater.parallel.spatial.rows import ELEMENT_WISE, Plain, Rows, changes_in_place, handles

_NAMES = """relu relu_ relu6 leaky_relu leaky_relu_ elu elu_ celu selu gelu silu mish hardtanh hardswish hardsigmoid softplus
    softsign logsigmoid tanh tanh_ sigmoid sigmoid_ dropout2d feature_dropout add add_ sub sub_ subtract mul mul_ multiply div
    div_ divide true_divide neg pow square sqrt rsqrt exp log log1p abs clamp clamp_ clip maximum minimum lerp addcmul
    __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ __mul__ __rmul__ __imul__ __truediv__ __rtruediv__ __itruediv__
    __neg__ __pow__ __abs__ contiguous clone detach to float double bfloat16 half zeros_like ones_like"""


def _element_wise(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    values, _ = tree_flatten((args, kwargs))
    maps = [value for value in values if isinstance(value, Rows)]
    height, regions = maps[0].height, maps[0].regions
    if any(found.height != height for found in maps) or (not isinstance(args[0], Rows) and changes_in_place(func)):
        return NotImplemented

    def own(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or isinstance(value, Rows) or value.ndim == 0:
            return value
        spread = regions.spread(value)
        if value.ndim < 2 or value.shape[-2] == 1:
            return spread
        begin, end = regions.own(height)
        return spread[..., begin:end, :]

    with Plain():
        found = func(*tree_map(own, args), **tree_map(own, kwargs))
        return found if isinstance(found, Rows) else Rows.of(found, height, regions)


ELEMENT_WISE.update(
    (function, partial(_element_wise, function))
    for name in _NAMES.split()
    for place in (torch, torch.Tensor, functional)
    if callable(function := getattr(place, name, None))
)


@handles(functional.dropout)
def _dropout(input: Rows, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    if not training or p == 0:
        return input
    with Plain():
        own = input.own
        # the random numbers of the whole map: the same as those of one process
        kept = own.new_empty(own.shape[0], own.shape[1], input.height, own.shape[3]).bernoulli_(1 - p)
        begin, end = input.regions.own(input.height)
        return Rows.of(own * (kept[:, :, begin:end] / (1 - p)), input.height, input.regions)


@handles(torch.cat, torch.concat)
def _cat(tensors: Any, dim: int = 0) -> Any:
    first = tensors[0]
    alike = all(isinstance(one, Rows) and one.height == first.height for one in tensors)
    if not alike or dim % 4 == 2:
        return NotImplemented
    with Plain():
        return Rows.of(torch.cat([one.own for one in tensors], dim), first.height, first.regions)
