"""Calls of the library's functions, for the tests of its algorithms."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import datasets

from braidwater import dml
from braidwater.dml.library_reference import library_function

DIABETES = datasets.load_diabetes(return_X_y=True)
IRIS = datasets.load_iris(return_X_y=True)
# strict: what SystemDS would refuse, the library does not do
STRICT: dict[str, Any] = {"strict": True, "seed": 1}


def call(name: str, **given: Any) -> Any:
    """The results of a function of the library: one, or a tuple."""
    results = library_function(name).results
    outputs = [f"out{i}" for i in range(len(results))]
    left = outputs[0] if len(outputs) == 1 else f"[{', '.join(outputs)}]"
    script = f"{left} = {name}({', '.join(f'{key} = {key}' for key in given)})"
    found = dml.run(script, given, outputs, **STRICT)
    values = tuple(
        found[output].toarray() if hasattr(found[output], "toarray") else found[output] for output in outputs
    )
    return values[0] if len(values) == 1 else values


def column(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=float).reshape(-1, 1)
