"""Layers that slide over a picture: each worker fetches the rows that its region of the output is made of."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from braidwater.parallel.spatial.halo import Window, needs
from braidwater.parallel.spatial.regions import Regions
from braidwater.parallel.spatial.rows import Plain, Rows, handles


def _window_rows(
    tensor: torch.Tensor, window: Window, regions: Regions, fill: float = 0.0
) -> tuple[torch.Tensor, int] | None:
    """The input rows of this worker's output rows, padding included, and the height of the output; None where it is too low."""
    height = tensor.height if isinstance(tensor, Rows) else tensor.shape[2]
    outputs = window.outputs(height)
    if outputs < regions.parts or height < regions.parts:
        return None
    begin, end = needs(window, height, regions.parts)[regions.part]
    if isinstance(tensor, Rows):
        found = regions.fetch(tensor.own, height, window)
    else:
        found = regions.spread(tensor)[:, :, begin:end]
    low, high = window.inputs(regions.own(outputs))
    above = min(max(-low, 0), high - low)
    below = high - low - above - (end - begin)
    if above or below:
        found = functional.pad(found, (0, 0, above, below), value=fill)
    return found, outputs


@handles(torch.conv2d)
def _conv2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    regions: Regions | None = None,
) -> Any:
    if not isinstance(input, Rows) and regions is None:
        return NotImplemented
    regions = regions or input.regions  # type: ignore[attr-defined]
    strides, dilations = _pair(stride), _pair(dilation)
    before, after = _padding(padding, weight.shape[2:], dilations)
    window = Window(weight.shape[2], strides[0], before[0], after[0], dilations[0])
    with Plain():
        found = _window_rows(input, window, regions)
        if found is None:
            return NotImplemented
        rows, outputs = found
        if before[1] != after[1]:
            rows, before = functional.pad(rows, (before[1], after[1])), (0, 0)
        own = torch.conv2d(rows, weight, bias, strides, (0, before[1]), dilations, groups)
        return Rows.of(own, outputs, regions)


def _padding(padding: Any, kernel: torch.Size, dilation: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Padding (above, left) and (below, right)."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return (total[0] // 2, total[1] // 2), (total[0] - total[0] // 2, total[1] - total[1] // 2)
    return _pair(padding), _pair(padding)


@handles(torch.max_pool2d, functional.max_pool2d)
def _max_pool2d(
    input: Rows,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    if ceil_mode or return_indices:
        return NotImplemented
    kernel, pad, dilations = _pair(kernel_size), _pair(padding), _pair(dilation)
    strides = _pair(stride) if stride else kernel
    with Plain():
        window = Window(kernel[0], strides[0], pad[0], pad[0], dilations[0])
        found = _window_rows(input, window, input.regions, float("-inf"))
        if found is None:
            return NotImplemented
        own = torch.max_pool2d(found[0], kernel, strides, (0, pad[1]), dilations)
        return Rows.of(own, found[1], input.regions)


@handles(functional.avg_pool2d)
def _avg_pool2d(
    input: Rows,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    kernel, pad = _pair(kernel_size), _pair(padding)
    if ceil_mode or (any(pad) and not count_include_pad and divisor_override is None):
        return NotImplemented
    strides = _pair(stride) if stride else kernel
    with Plain():
        found = _window_rows(input, Window(kernel[0], strides[0], pad[0], pad[0]), input.regions)
        if found is None:
            return NotImplemented
        own = functional.avg_pool2d(found[0], kernel, strides, (0, pad[1]), divisor_override=divisor_override)
        return Rows.of(own, found[1], input.regions)


def _pair(value: Any) -> tuple[int, int]:
    first, *others = value if isinstance(value, tuple | list) else (value,)
    return int(first), int(others[0] if others else first)
