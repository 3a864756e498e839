"""exp and log1p as polynomials that a compiler turns into vector instructions.

numba calls the C library once a number (its vector library is not in every build): that doubles the time of a logistic
pass. These take the range reduction of Cephes (Moshier 1989) and a polynomial; the power of two is made from its bits.
Arguments are
what a logistic loss needs: ``exp`` of numbers that are not positive, ``log1p`` of numbers from 0 to 1. Errors are below
    2 units in the last place of the result for `exp`, below 4 for `log1p`.

Importing this module imports numba.
"""
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic, overload

F = np.float32


@intrinsic  # type: ignore[untyped-decorator, unused-ignore]
def _float32_of_bits(context: Any, bits: Any) -> Any:
    """The float32 whose bits are those of an int32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic  # type: ignore[untyped-decorator, unused-ignore]
def _float64_of_bits(context: Any, bits: Any) -> Any:
    """The float64 whose bits are those of an int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


@njit(inline="always")
def exp32(x: Any) -> Any:
    """exp of a float32 that is not positive; below -87 it is taken as -87 (1.6e-38)."""
    x = max(x, F(-87.0))
    n = np.floor(x * F(1.44269504) + F(0.5))
    r = x - n * F(0.693359375)
    r = r + n * F(2.12194440e-4)
    p = F(1.9875691500e-4)
    p = p * r + F(1.3981999507e-3)
    p = p * r + F(8.3334519073e-3)
    p = p * r + F(4.1665795894e-2)
    p = p * r + F(1.6666665459e-1)
    p = p * r + F(5.0000001201e-1)
    p = p * r * r + r + F(1)
    return p * _float32_of_bits((np.int32(n) + np.int32(127)) << np.int32(23))


@njit(inline="always")
def log1p32(u: Any) -> Any:
    """log(1 + u) of a float32 from 0 to 1, by the series of the inverse hyperbolic tangent of u / (2 + u)."""
    s = u / (F(2) + u)
    q = s * s
    p = F(1 / 15)
    p = p * q + F(1 / 13)
    p = p * q + F(1 / 11)
    p = p * q + F(1 / 9)
    p = p * q + F(1 / 7)
    p = p * q + F(1 / 5)
    p = p * q + F(1 / 3)
    return F(2) * s + F(2) * s * (q * p)


@njit(inline="always")
def exp64(x: Any) -> Any:
    """exp of a float64 that is not positive; below -708 it is taken as -708 (3e-308)."""
    x = max(x, -708.0)
    n = np.floor(x * 1.4426950408889634 + 0.5)
    r = x - n * 6.93145751953125e-1
    r = r - n * 1.42860682030941723212e-6
    # Taylor: |r| <= 0.347, so the first term left out is below 1e-17
    p = 1.6059043836821613e-10
    p = p * r + 2.08767569878681e-09
    p = p * r + 2.505210838544172e-08
    p = p * r + 2.755731922398589e-07
    p = p * r + 2.7557319223985893e-06
    p = p * r + 2.48015873015873e-05
    p = p * r + 1.984126984126984e-04
    p = p * r + 1.3888888888888889e-03
    p = p * r + 8.333333333333333e-03
    p = p * r + 4.1666666666666664e-02
    p = p * r + 1.6666666666666666e-01
    p = p * r + 5.0e-1
    p = p * r * r + r + 1.0
    return p * _float64_of_bits((np.int64(n) + np.int64(1023)) << np.int64(52))


@njit(inline="always")
def log1p64(u: Any) -> Any:
    """log(1 + u) of a float64 from 0 to 1; seventeen terms, as u / (2 + u) reaches a third."""
    s = u / (2.0 + u)
    q = s * s
    p = 1 / 35
    p = p * q + 1 / 33
    p = p * q + 1 / 31
    p = p * q + 1 / 29
    p = p * q + 1 / 27
    p = p * q + 1 / 25
    p = p * q + 1 / 23
    p = p * q + 1 / 21
    p = p * q + 1 / 19
    p = p * q + 1 / 17
    p = p * q + 1 / 15
    p = p * q + 1 / 13
    p = p * q + 1 / 11
    p = p * q + 1 / 9
    p = p * q + 1 / 7
    p = p * q + 1 / 5
    p = p * q + 1 / 3
    return 2.0 * s + 2.0 * s * (q * p)


def exp_below(x: Any) -> Any:
    """exp of a number that is not positive, in its own type; compiled code only."""


def log1p_unit(u: Any) -> Any:
    """log(1 + u) of a number from 0 to 1, in its own type; compiled code only."""


@overload(exp_below, inline="always")
def _choose_exp(x: Any) -> Callable[..., Any]:
    # numba wants the same signature, annotations included
    def single(x: Any) -> Any:
        return exp32(x)

    def double(x: Any) -> Any:
        return exp64(x)

    return single if x == types.float32 else double


@overload(log1p_unit, inline="always")
def _choose_log1p(u: Any) -> Callable[..., Any]:
    def single(u: Any) -> Any:
        return log1p32(u)

    def double(u: Any) -> Any:
        return log1p64(u)

    return single if u == types.float32 else double
