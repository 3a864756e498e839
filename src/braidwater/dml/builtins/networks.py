"""Recurrent layers and normalisation by torch: forward as scripts need it, backward by automatic differentiation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from braidwater.dml.builtins.base import Caller, builtin
from braidwater.dml.builtins.convolution import torch_module
from braidwater.errors import DMLShapeError, OptionError

LSTM = "X: matrix, W: matrix, b: matrix, out0: matrix, c0: matrix"


def _tensors(caller: Caller, matrices: Sequence[Any], *, gradients: bool) -> list[Any]:
    torch = torch_module()
    return [torch.tensor(caller.array(each), requires_grad=gradients) for each in matrices]


def _arrays(tensors: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(np.ascontiguousarray(each.detach().reshape(each.shape[0], -1).numpy()) for each in tensors)


def _steps(caller: Caller, X: Any, W: Any, out0: Any, c0: Any, b: Any) -> tuple[int, int]:
    """Steps of time and features of each, from the shapes: W is (features + neurons) x 4 neurons."""
    (rows, width), (height, gates), (n, neurons) = caller.shape(X), caller.shape(W), caller.shape(out0)
    features = height - neurons
    if gates != 4 * neurons or features < 1 or width % features:
        raise DMLShapeError(
            f"{caller.name}: W is {height} x {gates}, and with out0 of {neurons} columns it must be "
            f"(D + {neurons}) x {4 * neurons}, the {width} columns of X being a multiple of D."
        )
    if n != rows or caller.shape(c0) != (n, neurons) or caller.shape(b) != (1, gates):
        raise DMLShapeError(f"{caller.name}: out0 and c0 are {rows} x {neurons}, and b is 1 x {gates}.")
    return width // features, features


def _run(steps: int, features: int, X: Any, W: Any, b: Any, out: Any, c: Any) -> tuple[list[Any], Any]:
    """The outputs of all steps, and the last cell state. Gates stand in W in the order input, forget, output, candidate."""
    torch, outputs, neurons = torch_module(), [], out.shape[1]
    for step in range(steps):
        now = X[:, step * features : (step + 1) * features]
        gates = torch.cat([now, out], dim=1) @ W + b
        i, f, o = torch.sigmoid(gates[:, : 3 * neurons]).split(neurons, dim=1)
        c = f * c + i * torch.tanh(gates[:, 3 * neurons :])
        out = o * torch.tanh(c)
        outputs.append(out)
    return outputs, c


@builtin(f"lstm({LSTM}, return_sequences: boolean = TRUE)",
         "[out, c]: long short-term memory (Hochreiter and Schmidhuber 1997). A row of X holds the steps one after the other, "
         "one of out their outputs (or the last), c the last cell state. Gates: input, forget, output, candidate.")  # fmt: skip
def lstm(caller: Caller, X: Any, W: Any, b: Any, out0: Any, c0: Any, return_sequences: bool) -> tuple[Any, ...]:
    steps, features = _steps(caller, X, W, out0, c0, b)
    outputs, c = _run(steps, features, *_tensors(caller, (X, W, b, out0, c0), gradients=False))
    return _arrays([torch_module().cat(outputs, dim=1) if return_sequences else outputs[-1], c])


@builtin(f"lstm_backward({LSTM}, given_sequences: boolean, dout: matrix, dc: matrix)",
         "[dX, dW, db, dout0, dc0]: the gradients of lstm's inputs, from those of out and c.")  # fmt: skip
def lstm_backward(
    caller: Caller, X: Any, W: Any, b: Any, out0: Any, c0: Any, given_sequences: bool, dout: Any, dc: Any
) -> tuple[Any, ...]:
    steps, features = _steps(caller, X, W, out0, c0, b)
    inputs = _tensors(caller, (X, W, b, out0, c0), gradients=True)
    outputs, c = _run(steps, features, *inputs)
    out = torch_module().cat(outputs, dim=1) if given_sequences else outputs[-1]
    wanted = _tensors(caller, (dout, dc), gradients=False)
    if wanted[0].shape != out.shape or wanted[1].shape != c.shape:
        raise DMLShapeError(
            f"{caller.name}: dout is {out.shape[0]} x {out.shape[1]}, and dc {c.shape[0]} x {c.shape[1]}."
        )
    return _arrays(torch_module().autograd.grad([out, c], inputs, wanted))


def _channels(caller: Caller, X: Any, scale: Any) -> Any:
    """Images as a tensor of samples, channels and cells."""
    channels, width = caller.shape(scale)[0], caller.shape(X)[1]
    if channels < 1 or width % channels:
        raise DMLShapeError(f"{caller.name}: {width} columns are no images of {channels} channels.")
    return torch_module().tensor(caller.array(X)).reshape(-1, channels, width // channels)


@builtin("batch_norm2d(X: matrix, scale: matrix, shift: matrix, ema_mean: matrix, ema_var: matrix, mode: string, "
         "epsilon: double, momentum: double)",
         "[out, ema_mean, ema_var, mean, inv_sd]: each channel of images with mean 0 and variance 1, scaled and shifted (Ioffe "
         "and Szegedy 2015). mode 'train' takes the batch's mean and variance and moves the averages by 1 - momentum, 'test' "
         "takes the averages.")  # fmt: skip
def batch_norm2d(
    caller: Caller,
    X: Any,
    scale: Any,
    shift: Any,
    ema_mean: Any,
    ema_var: Any,
    mode: str,
    epsilon: float,
    momentum: float,
) -> tuple[Any, ...]:
    if mode not in ("train", "test"):
        raise OptionError("mode", mode, "train or test")
    images = _channels(caller, X, scale)
    gamma, beta, average, spread = (
        each.reshape(1, -1, 1) for each in _tensors(caller, (scale, shift, ema_mean, ema_var), gradients=False)
    )
    mean, variance = average, spread
    if mode == "train":
        mean = images.mean(dim=(0, 2), keepdim=True)
        variance = images.var(dim=(0, 2), keepdim=True, correction=0)
        average = momentum * average + (1 - momentum) * mean
        spread = momentum * spread + (1 - momentum) * variance
    inverse = (variance + epsilon).rsqrt()
    out = (images - mean) * inverse * gamma + beta
    return _arrays([out, *(each.reshape(-1, 1) for each in (average, spread, mean, inverse))])


@builtin("batch_norm2d_backward(X: matrix, dout: matrix, scale: matrix, epsilon: double, mean: matrix = none, "
         "inv_sd: matrix = none)",
         "[dX, dscale, dshift]: the gradients of batch_norm2d's inputs in mode train.")  # fmt: skip
def batch_norm2d_backward(
    caller: Caller, X: Any, dout: Any, scale: Any, epsilon: float, mean: Any, inv_sd: Any
) -> tuple[Any, ...]:
    torch = torch_module()
    images = _channels(caller, X, scale).requires_grad_()
    (gamma,) = _tensors(caller, (scale,), gradients=True)
    beta = torch.zeros_like(gamma, requires_grad=True)
    out = torch.nn.functional.batch_norm(
        images, None, None, gamma.reshape(-1), beta.reshape(-1), training=True, eps=epsilon
    )
    wanted = _channels(caller, dout, scale)
    if wanted.shape != images.shape:
        raise DMLShapeError(f"{caller.name}: dout must have the shape of X.")
    return _arrays(torch.autograd.grad(out, [images, gamma, beta], wanted))
