"""A function of each cell of a frame, in the few words of Java that scripts use."""

from __future__ import annotations

import numpy as np

from braidwater.dml.builtins.base import Caller, builtin
from braidwater.dml.builtins.java import compile_lambda
from braidwater.dml.values import Frame
from braidwater.errors import UnsupportedError


@builtin(
    "map(target: frame, function: string, margin: int = 0)", 'Each cell by a function written "x -> x.toLowerCase()".'
)
def map_cells(caller: Caller, target: Frame, function: str, margin: int) -> Frame:
    if margin:
        raise UnsupportedError("map works cell by cell; margin=1 and margin=2 (whole rows and columns) are not there.")
    apply = compile_lambda(function)
    columns = [np.array([apply(cell) for cell in column.tolist()], dtype=object) for column in target.columns]
    return Frame.of(columns, target.names, ["string"] * len(target.names))
