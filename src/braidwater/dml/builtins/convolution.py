"""Convolution and pooling of images, by torch. An image is a row: its channels one after the other, each row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from braidwater.dml.builtins.base import Caller, builtin
from braidwater.dml.builtins.casts import integers_of
from braidwater.dml.values import ListValue
from braidwater.errors import DMLShapeError
from braidwater.extras import needed_for

SHAPES = "input_shape: value, filter_shape: value, stride: value = none, padding: value = none"
POOL = "input_shape: value, pool_size: value, stride: value = none, padding: value = none"


def torch_module() -> Any:
    """torch, where it is installed."""
    with needed_for("A layer of a neural network"):
        import torch
    return torch


class _Images:
    """Shapes of a convolution, and its matrices as tensors."""

    def __init__(self, caller: Caller, input_shape: Any, window: Any, stride: Any, padding: Any) -> None:
        self.caller = caller
        self.torch = torch_module()
        self.input = self._sizes(input_shape, 4, "input_shape")
        self.window = self._sizes(window, None, "filter_shape or pool_size")
        self.stride = self._sizes(stride, 2, "stride") if stride is not None else [1, 1]
        self.padding = self._sizes(padding, 2, "padding") if padding is not None else [0, 0]
        height, width = self.window[-2:]
        self.out = [
            (size + 2 * pad - edge) // step + 1
            for size, pad, edge, step in zip(self.input[2:], self.padding, (height, width), self.stride, strict=True)
        ]
        if min(self.out) < 1:
            raise DMLShapeError(
                f"A window of {height} x {width} does not fit into images of {self.input[2]} x {self.input[3]}."
            )

    def _sizes(self, given: Any, count: int | None, name: str) -> list[int]:
        sizes = integers_of(self.caller, given if isinstance(given, ListValue) else ListValue([given]))
        if count is not None and len(sizes) == 1 and count == 2:
            sizes = sizes * 2
        if count is not None and len(sizes) != count:
            raise DMLShapeError(f"{name} needs {count} numbers, and got {len(sizes)}.")
        return sizes

    def tensor(self, matrix: Any, shape: Sequence[int], what: str) -> Any:
        array = self.caller.array(matrix)
        channels, height, width = shape
        if array.shape[1] != channels * height * width:
            raise DMLShapeError(
                f"{self.caller.name}: {what} has {array.shape[1]} columns, and {channels} channels of {height} x {width} "
                f"are {channels * height * width}."
            )
        return self.torch.from_numpy(np.ascontiguousarray(array)).reshape(array.shape[0], channels, height, width)

    def images(self, matrix: Any) -> Any:
        return self.tensor(matrix, self.input[1:], "the input")

    def outputs(self, matrix: Any, channels: int) -> Any:
        return self.tensor(matrix, [channels, *self.out], "dout")

    def filters(self, matrix: Any) -> Any:
        return self.tensor(matrix, self.window[1:], "the filter")

    @property
    def options(self) -> dict[str, Any]:
        return {"stride": tuple(self.stride), "padding": tuple(self.padding)}


def _matrix(tensor: Any) -> Any:
    return np.ascontiguousarray(tensor.reshape(tensor.shape[0], -1).numpy())


@builtin(
    f"conv2d(input: matrix, filter: matrix, {SHAPES})",
    "Convolution of images (N, C, H, W) with filters (K, C, Hf, Wf).",
)
def conv2d(
    caller: Caller, input: Any, filter: Any, input_shape: Any, filter_shape: Any, stride: Any, padding: Any
) -> Any:
    each = _Images(caller, input_shape, filter_shape, stride, padding)
    return _matrix(each.torch.nn.functional.conv2d(each.images(input), each.filters(filter), **each.options))


@builtin(f"conv2d_backward_filter(input: matrix, dout: matrix, {SHAPES})", "The gradient of conv2d's filters.")
def conv2d_backward_filter(
    caller: Caller, input: Any, dout: Any, input_shape: Any, filter_shape: Any, stride: Any, padding: Any
) -> Any:
    each = _Images(caller, input_shape, filter_shape, stride, padding)
    images, gradient = each.images(input), each.outputs(dout, each.window[0])
    found = each.torch.nn.grad.conv2d_weight(images, tuple(each.window), gradient, **each.options)
    return _matrix(found)


@builtin(f"conv2d_backward_data(filter: matrix, dout: matrix, {SHAPES})", "The gradient of conv2d's input.")
def conv2d_backward_data(
    caller: Caller, filter: Any, dout: Any, input_shape: Any, filter_shape: Any, stride: Any, padding: Any
) -> Any:
    each = _Images(caller, input_shape, filter_shape, stride, padding)
    gradient = each.outputs(dout, each.window[0])
    shape = (gradient.shape[0], *each.input[1:])
    return _matrix(each.torch.nn.grad.conv2d_input(shape, each.filters(filter), gradient, **each.options))


def _pooled(each: _Images, kind: str, images: Any) -> Any:
    window = tuple(each.window[-2:])
    if kind == "max":
        # cells beyond the border never win; torch itself allows them for half a window only
        border = (each.padding[1], each.padding[1], each.padding[0], each.padding[0])
        padded = each.torch.nn.functional.pad(images, border, value=-np.inf)
        return each.torch.nn.functional.max_pool2d(padded, window, stride=tuple(each.stride))
    return each.torch.nn.functional.avg_pool2d(images, window, **each.options)


def _declare(kind: str) -> None:
    @builtin(f"{kind}_pool(input: matrix, {POOL})", f"The {kind} of each window of images (N, C, H, W).")
    def forward(caller: Caller, input: Any, input_shape: Any, pool_size: Any, stride: Any, padding: Any) -> Any:
        each = _Images(caller, input_shape, pool_size, stride, padding)
        return _matrix(_pooled(each, kind, each.images(input)))

    @builtin(f"{kind}_pool_backward(input: matrix, dout: matrix, {POOL})", f"The gradient of {kind}_pool's input.")
    def backward(
        caller: Caller, input: Any, dout: Any, input_shape: Any, pool_size: Any, stride: Any, padding: Any
    ) -> Any:
        each = _Images(caller, input_shape, pool_size, stride, padding)
        images = each.images(input).requires_grad_()
        _pooled(each, kind, images).backward(each.outputs(dout, each.input[1]))
        return _matrix(images.grad)


for _kind in ("max", "avg"):
    _declare(_kind)


def _by_channel(caller: Caller, input: Any, bias: Any, op: str) -> Any:
    channels, _ = caller.shape(bias)
    width = caller.shape(input)[1]
    if width % max(channels, 1):
        raise DMLShapeError(f"{caller.name}: {width} columns are no images of {channels} channels.")
    row = np.repeat(caller.array(bias).ravel(), width // channels).reshape(1, -1)
    return caller.node(op, input, row)


@builtin("bias_add(input: matrix, bias: matrix)", "A number for each channel added to images.")
def bias_add(caller: Caller, input: Any, bias: Any) -> Any:
    return _by_channel(caller, input, bias, "+")


@builtin("bias_multiply(input: matrix, bias: matrix)", "Images multiplied by a number for each channel.")
def bias_multiply(caller: Caller, input: Any, bias: Any) -> Any:
    return _by_channel(caller, input, bias, "*")
