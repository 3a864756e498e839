"""Matrices from nothing: constants, sequences, random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from braidwater.dml.hops.facts import Facts
from braidwater.dml.operators.base import Attributes, operator
from braidwater.dml.scipy_on_demand import sparse
from braidwater.dml.values import SMALLEST_SPARSE, SPARSE_BELOW
from braidwater.errors import DMLValueError


def whole(facts: Facts) -> int | None:
    """A size that is known before it is computed."""
    return None if facts.value is None else int(facts.value)


def _fill_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    return Facts.matrix(whole(inputs[1]), whole(inputs[2]))  # zeros too are made, and counted by nobody


@operator("fill", _fill_facts, "A matrix (value, rows, columns) of one value.")
def fill(values: Sequence[Any], attributes: Attributes) -> Any:
    value, rows, cols = values
    return np.full((int(rows), int(cols)), float(value))


def steps(first: float, last: float, step: float) -> int:
    """How many numbers `seq` gives. A rounding error at the end does not lose the last one."""
    if step == 0 or (last - first) * step < 0:
        raise DMLValueError(
            f"seq({first:g}, {last:g}, {step:g}) never arrives.", hint="The step must lead from the first to the last."
        )
    return 1 + int(np.floor((last - first) / step + 1e-10))


def _sequence_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    first, last, step = (facts.value for facts in inputs)
    if isinstance(first, float | int) and isinstance(last, float | int) and isinstance(step, float | int):
        return Facts.matrix(steps(first, last, step), 1)
    return Facts.matrix(None, 1)


@operator("seq", _sequence_facts, "A column (first, last, step) of evenly spaced numbers.")
def sequence(values: Sequence[Any], attributes: Attributes) -> Any:
    first, last, step = map(float, values)
    return (first + step * np.arange(steps(first, last, step))).reshape(-1, 1)


def _random_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    rows, cols = attributes["rows"], attributes["cols"]
    count = round(attributes["sparsity"] * rows * cols)
    return Facts.matrix(rows, cols, (count, count) if attributes["sparsity"] < 1 else None)


@operator("rand", _random_facts, "Random cells; attributes rows, cols, min, max, sparsity, pdf, lambda, seed.")
def random_matrix(values: Sequence[Any], attributes: Attributes) -> Any:
    rows, cols, sparsity = attributes["rows"], attributes["cols"], attributes["sparsity"]
    generator = np.random.default_rng(attributes["seed"])
    if sparsity >= 1:
        return _draw(generator, attributes, rows * cols).reshape(rows, cols)
    count = round(sparsity * rows * cols)
    places = generator.choice(rows * cols, size=count, replace=False, shuffle=False)
    cells = _draw(generator, attributes, count)
    if sparsity < SPARSE_BELOW and rows * cols >= SMALLEST_SPARSE:
        return sparse.csr_array(sparse.coo_array((cells, (places // cols, places % cols)), shape=(rows, cols)))
    matrix = np.zeros(rows * cols)
    matrix[places] = cells
    return matrix.reshape(rows, cols)


def _draw(generator: np.random.Generator, attributes: Attributes, count: int) -> Any:
    pdf, parameter = attributes["pdf"], attributes["lambda"]
    if pdf == "uniform":
        return generator.uniform(attributes["min"], attributes["max"], count)
    if pdf == "normal":
        return generator.standard_normal(count)
    if pdf == "poisson":
        return generator.poisson(parameter, count).astype(np.float64)
    raise DMLValueError(f"rand has no distribution {pdf!r}.", hint="It has uniform, normal and poisson.")


def _sample_facts(inputs: Sequence[Facts], attributes: Attributes) -> Facts:
    return Facts.matrix(attributes["size"], 1)


@operator("sample", _sample_facts, "Numbers drawn from 1 to range; attributes range, size, replacement, seed.")
def sample(values: Sequence[Any], attributes: Attributes) -> Any:
    generator = np.random.default_rng(attributes["seed"])
    drawn = generator.choice(attributes["range"], attributes["size"], replace=attributes["replacement"])
    return np.asarray(drawn + 1).astype(np.float64).reshape(-1, 1)
