"""What commands print: text for people, one JSON object for programs. Progress goes to standard error."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import typer


def print_json(document: Mapping[str, Any]) -> None:
    """One strict JSON object on standard output: NaN and infinities become null."""
    typer.echo(json.dumps(strict(document), indent=2, allow_nan=False))


def strict(value: Any) -> Any:
    """`value` as JSON knows it: numpy numbers and arrays as numbers and lists, NaN and infinities as None.

    >>> strict({"loss": float("nan"), "shape": (2, 3)})
    {'loss': None, 'shape': [2, 3]}
    """
    if isinstance(value, Mapping):
        return {str(name): strict(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [strict(inner) for inner in value]
    if hasattr(value, "tolist"):
        return strict(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)


def print_figures(figures: Mapping[str, Any]) -> None:
    """Names and values in two columns."""
    width = max((len(name) for name in figures), default=0)
    for name, value in figures.items():
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if isinstance(value, float) else str(value)
        typer.echo(f"{name:<{width}}  {shown}")
