"""Quantiles, moments, distributions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from braidwater.dml.builtins.base import Caller, builtin
from braidwater.dml.interpreter.lazy import is_matrix_value
from braidwater.dml.scipy_on_demand import special
from braidwater.errors import DMLShapeError, DMLValueError


def _column(caller: Caller, X: Any) -> Any:
    array = caller.array(X)
    if 1 not in array.shape:
        raise DMLShapeError(f"{caller.name} needs one column, and this matrix is {array.shape[0]} x {array.shape[1]}.")
    return array.ravel()


def _sorted(caller: Caller, X: Any, weights: Any) -> tuple[Any, Any]:
    """Cells ascending, and how many each stands for, added up."""
    cells = _column(caller, X)
    counts = np.ones(len(cells)) if weights is None else _column(caller, weights)
    if len(counts) != len(cells):
        raise DMLShapeError(f"{caller.name} has {len(cells)} cells and {len(counts)} weights.")
    if not len(cells):
        raise DMLValueError(f"{caller.name} of nothing.")
    order = np.argsort(cells, kind="stable")
    return cells[order], np.cumsum(counts[order])


def _at(cells: Any, until: Any, places: Any) -> Any:
    """The cell that the `places`-th of all (weighted, from 1) is."""
    return cells[np.minimum(np.searchsorted(until, np.maximum(places, 1)), len(cells) - 1)]


@builtin("quantile(X: matrix, W: value, P: value = none)",
         "The value at place ceil(p n): quantile(X, p) or, with weights, quantile(X, W, p). For one p and an even n the mean of "
         "it and the next; for a column of several always the value.")  # fmt: skip
def quantile(caller: Caller, X: Any, W: Any, P: Any) -> Any:
    weights, shares = (None, W) if P is None else (W, P)
    cells, until = _sorted(caller, X, weights)
    wanted = caller.array(shares) if is_matrix_value(shares) else float(caller.force(shares))
    if np.min(wanted) < 0 or np.max(wanted) > 1:
        raise DMLValueError("A quantile lies between 0 and 1.")
    place = np.ceil(np.asarray(wanted) * until[-1])
    found = _at(cells, until, place)
    if is_matrix_value(shares):
        return found
    if until[-1] % 2 == 0 and place >= 1:  # SystemDS's rule, which is one of medians, kept for the same numbers
        found = (found + _at(cells, until, place + 1)) / 2
    return float(found)


@builtin("median(X: matrix, W: matrix = none)", "The middle value; the mean of the two middle ones of an even number.")
def median(caller: Caller, X: Any, W: Any) -> float:
    cells, until = _sorted(caller, X, W)
    half = until[-1] / 2
    first, second = _at(cells, until, np.ceil(half)), _at(cells, until, np.floor(half) + 1)
    return float((first + second) / 2)


@builtin(
    "interQuantile(X: matrix, W: value, P: value = none)", "The cells between the quantiles p and 1 - p, ascending."
)
def inter_quantile(caller: Caller, X: Any, W: Any, P: Any) -> Any:
    weights, share = (None, W) if P is None else (W, P)
    cells, until = _sorted(caller, X, weights)
    low, high = (np.ceil(p * until[-1]) for p in (float(caller.force(share)), 1 - float(caller.force(share))))
    return cells[(until > low) & (until <= high)].reshape(-1, 1)


@builtin("interQuartileMean(X: matrix, W: matrix = none)", "The mean of the middle half of the cells.")
def inter_quartile_mean(caller: Caller, X: Any, W: Any) -> float:
    cells, until = _sorted(caller, X, W)
    total = until[-1]
    low, high = 0.25 * total, 0.75 * total
    begins = np.concatenate([[0.0], until[:-1]])
    inside = np.clip(np.minimum(until, high) - np.maximum(begins, low), 0, None)
    return float((inside * cells).sum() / (0.5 * total))


@builtin(
    "moment(X: matrix, W: value, k: value = none)",
    "The k-th central moment (divided by n): moment(X, k) or moment(X, weights, k).",
    "centralMoment",
)
def moment(caller: Caller, X: Any, W: Any, k: Any) -> float:
    weights, order = (None, W) if k is None else (W, k)
    cells = _column(caller, X)
    counts = np.ones(len(cells)) if weights is None else _column(caller, weights)
    mean, power = (counts * cells).sum() / counts.sum(), int(caller.force(order))
    if power not in (0, 1, 2, 3, 4):
        raise DMLValueError(f"moment has no order {power}; it has 0 to 4.")
    if power < 2:
        return float(mean) if power == 1 else float(counts.sum())
    return float((counts * (cells - mean) ** power).sum() / counts.sum())


@builtin("cov(X: matrix, Y: matrix = none, W: matrix = none)", "The covariance of two columns (divided by n - 1).")
def cov(caller: Caller, X: Any, Y: Any, W: Any) -> Any:
    if Y is None:
        return np.atleast_2d(np.cov(caller.array(X), rowvar=False))
    first, second = _column(caller, X), _column(caller, Y)
    if len(first) != len(second):
        raise DMLShapeError(f"cov needs as many cells, and got {len(first)} and {len(second)}.")
    counts = np.ones(len(first)) if W is None else _column(caller, W)
    n = counts.sum()
    a, b = (x - (counts * x).sum() / n for x in (first, second))
    return float((counts * a * b).sum() / (n - 1))


Distribution = tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any], tuple[str, ...]]
DISTRIBUTIONS: dict[str, Distribution] = {  # cdf, its complement, inverse of cdf, parameters
    "normal": (
        lambda x, mean, sd: special.ndtr((x - mean) / sd),
        lambda x, mean, sd: special.ndtr((mean - x) / sd),
        lambda p, mean, sd: mean + sd * special.ndtri(p),
        ("mean", "sd"),
    ),
    "exp": (
        lambda x, rate: -np.expm1(-rate * np.maximum(x, 0)),
        lambda x, rate: np.exp(-rate * np.maximum(x, 0)),
        lambda p, rate: -np.log1p(-np.asarray(p)) / rate,
        ("rate",),
    ),
    "chisq": (
        lambda x, df: special.chdtr(df, np.maximum(x, 0)),
        lambda x, df: special.chdtrc(df, np.maximum(x, 0)),
        lambda p, df: 2 * special.gammaincinv(df / 2, p),
        ("df",),
    ),
    "f": (
        lambda x, df1, df2: special.fdtr(df1, df2, np.maximum(x, 0)),
        lambda x, df1, df2: special.fdtrc(df1, df2, np.maximum(x, 0)),
        lambda p, df1, df2: special.fdtri(df1, df2, p),
        ("df1", "df2"),
    ),
    "t": (
        lambda x, df: special.stdtr(df, x),
        lambda x, df: special.stdtr(df, -x),
        lambda p, df: special.stdtrit(df, p),
        ("df",),
    ),
}
DEFAULTS = {"mean": 0.0, "sd": 1.0, "rate": 1.0}


def _parameters(dist: str, given: dict[str, float | None]) -> list[float]:
    if dist not in DISTRIBUTIONS:
        raise DMLValueError(f"There is no distribution {dist!r}.", hint=f"There are {', '.join(DISTRIBUTIONS)}.")
    found = []
    for name in DISTRIBUTIONS[dist][3]:
        value = given.get(name)
        value = DEFAULTS.get(name) if value is None else value
        if value is None:
            raise DMLValueError(f"The distribution {dist!r} needs {name}.")
        if name != "mean" and value <= 0:
            raise DMLValueError(f"{name}={value:g} is not possible; it must be above 0.")
        found.append(value)
    return found


def _probability(caller: Caller, target: Any, dist: str, lower: bool, **given: float | None) -> Any:
    parameters = _parameters(dist, given)
    below, above, _, _ = DISTRIBUTIONS[dist]
    function = below if lower else above
    return _applied(caller, target, lambda x: function(x, *parameters))


def _place(caller: Caller, target: Any, dist: str, **given: float | None) -> Any:
    parameters = _parameters(dist, given)
    return _applied(caller, target, lambda p: DISTRIBUTIONS[dist][2](p, *parameters))


def _applied(caller: Caller, target: Any, function: Callable[[Any], Any]) -> Any:
    if is_matrix_value(target):
        return np.asarray(function(caller.array(target)), dtype=np.float64)
    return float(function(float(caller.force(target))))


@builtin("cdf(target: value, dist: string, mean: double = none, sd: double = none, df: double = none, df1: double = none, "
         "df2: double = none, rate: double = none, lower.tail: boolean = TRUE)",
         "The probability of at most (or, lower.tail=FALSE, above) a value; dist is normal, exp, chisq, f or t.")  # fmt: skip
def cdf(caller: Caller, target: Any, dist: str, lower_tail: bool, **given: float | None) -> Any:
    return _probability(caller, target, dist, lower_tail, **given)


@builtin("icdf(target: value, dist: string, mean: double = none, sd: double = none, df: double = none, df1: double = none, "
         "df2: double = none, rate: double = none)", "The value that a probability belongs to; the inverse of cdf.")  # fmt: skip
def icdf(caller: Caller, target: Any, dist: str, **given: float | None) -> Any:
    return _place(caller, target, dist, **given)


def _declare(short: str, dist: str) -> None:
    names = DISTRIBUTIONS[dist][3]
    texts = ", ".join(
        f"{name}: double = {DEFAULTS[name]:g}" if name in DEFAULTS else f"{name}: double" for name in names
    )

    @builtin(f"p{short}(target: value, {texts}, lower.tail: boolean = TRUE)", f"cdf of the {dist} distribution.")
    def probability(caller: Caller, target: Any, lower_tail: bool, **given: float | None) -> Any:
        return _probability(caller, target, dist, lower_tail, **given)

    @builtin(f"q{short}(target: value, {texts})", f"icdf of the {dist} distribution.")
    def place(caller: Caller, target: Any, **given: float | None) -> Any:
        return _place(caller, target, dist, **given)


for _short, _dist in (("norm", "normal"), ("exp", "exp"), ("chisq", "chisq"), ("f", "f"), ("t", "t")):
    _declare(_short, _dist)
