"""Discrete Fourier transforms. Complex matrices are two: real and imaginary parts."""

from __future__ import annotations

from typing import Any

import numpy as np

from braidwater.dml.builtins.base import Caller, builtin
from braidwater.dml.interpreter.lazy import is_matrix_value
from braidwater.errors import DMLShapeError, OptionError

Pair = tuple[Any, Any]


def _pair(values: Any) -> Pair:
    return np.ascontiguousarray(values.real), np.ascontiguousarray(values.imag)


def _complex(caller: Caller, re: Any, im: Any) -> Any:
    real = caller.array(re)
    if im is None:
        return real
    imaginary = caller.array(im)
    if real.shape != imaginary.shape:
        raise DMLShapeError(
            f"{caller.name} has {real.shape[0]} x {real.shape[1]} real and {imaginary.shape[0]} x {imaginary.shape[1]} "
            "imaginary parts."
        )
    return real + 1j * imaginary


@builtin(
    "fft(re: matrix, im: matrix = none)", "[re, im]: the Fourier transform of a row or column; of a matrix, over both."
)
def fft(caller: Caller, re: Any, im: Any) -> Pair:
    return _pair(np.fft.fft2(_complex(caller, re, im)))


@builtin("ifft(re: matrix, im: matrix = none)", "[re, im]: the inverse of fft.")
def ifft(caller: Caller, re: Any, im: Any) -> Pair:
    return _pair(np.fft.ifft2(_complex(caller, re, im)))


@builtin("fft_linearized(re: matrix, im: matrix = none)", "[re, im]: the Fourier transform of each row.")
def fft_rows(caller: Caller, re: Any, im: Any) -> Pair:
    return _pair(np.fft.fft(_complex(caller, re, im), axis=1))


@builtin("ifft_linearized(re: matrix, im: matrix = none)", "[re, im]: the inverse of fft_linearized.")
def ifft_rows(caller: Caller, re: Any, im: Any) -> Pair:
    return _pair(np.fft.ifft(_complex(caller, re, im), axis=1))


@builtin("rfft(X: matrix)", "[re, im]: the first n %/% 2 + 1 columns of fft_linearized, which the others mirror.")
def rfft(caller: Caller, X: Any) -> Pair:
    return _pair(np.fft.rfft(caller.array(X), axis=1))


@builtin("stft(re: matrix, im: value = none, windowSize: int = 4, overlap: int = 1)",
         "[re, im]: the Fourier transforms of windows of each row, side by side; each window begins windowSize - overlap cells "
         "after the one before, and zeros fill the last. Called as stft(X, windowSize, overlap), or with "
         "the imaginary parts second.")  # fmt: skip
def stft(caller: Caller, re: Any, im: Any, windowSize: int, overlap: int) -> Pair:
    if im is not None and not is_matrix_value(im):
        im, windowSize, overlap = None, int(caller.force(im)), windowSize
    if not 0 <= overlap < windowSize:
        raise OptionError("overlap", overlap, f"between 0 and windowSize={windowSize}, exclusive")
    values = _complex(caller, re, im)
    rows, cols = values.shape
    step = windowSize - overlap
    windows = -(-(cols - overlap) // step)
    padded = np.zeros((rows, windows * step + overlap), dtype=complex)
    padded[:, :cols] = values[:, : padded.shape[1]]
    begins = step * np.arange(windows)
    cut = padded[:, begins[:, None] + np.arange(windowSize)]
    return _pair(np.fft.fft(cut, axis=2).reshape(rows, windows * windowSize))
