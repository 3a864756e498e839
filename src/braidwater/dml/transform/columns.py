"""One column's encoding: what it has learnt, kept as cells of a frame, and how it is applied."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from braidwater.dml.interpreter.printing import java_double
from braidwater.dml.transform.hash_code import hash_code
from braidwater.dml.transform.spec import ColumnSpec
from braidwater.dml.transform.words import words_of
from braidwater.errors import DMLTypeError, DMLValueError

DOT = "\u00b7"  # between a token and its code
IMPUTED = "\u00bf"  # in the place of a token: the code is what replaces missing cells


@dataclass
class LearntColumn:
    """What a column taught.

    `codes` are the tokens of recode, or the words (from 1), `edges` the lower and upper bounds of bins, `replacement` that of
    missing cells.
    """

    spec: ColumnSpec
    name: str
    codes: dict[str, int] = field(default_factory=dict)
    edges: list[tuple[float, float]] = field(default_factory=list)
    replacement: Any = None

    @property
    def width(self) -> int:
        """Columns of the matrix that it becomes."""
        if self.spec.code == "words":
            return len(self.codes)
        if not self.spec.dummy:
            return 1
        return max(
            {"recode": len(self.codes), "bin": len(self.edges), "hash": self.spec.hashed}.get(
                self.spec.code, len(self.codes)
            ),
            1,
        )


def missing(cell: Any) -> bool:
    return cell is None or cell == "" or cell == "NA" or cell != cell


def token(cell: Any) -> str:
    """A cell as it is compared: numbers as they are printed, so that 1 in one file and 1.0 in another stay apart."""
    return (
        java_double(cell)
        if isinstance(cell, float)
        else ("TRUE" if cell else "FALSE")
        if isinstance(cell, bool)
        else str(cell)
    )


def learn(cells: list[Any], name: str, spec: ColumnSpec) -> LearntColumn:
    """What the rows tell about a column. Codes are given in the order of first occurrence."""
    learnt = LearntColumn(spec, name)
    present = [cell for cell in cells if not missing(cell)]
    if spec.impute:
        learnt.replacement = _replacement(present, spec, name)
        if len(present) < len(cells):
            present = [*present, learnt.replacement]
    if spec.code == "recode":
        for cell in present:
            learnt.codes.setdefault(token(cell), len(learnt.codes) + 1)
    elif spec.code == "words":
        for cell in present:
            for word in words_of(token(cell)):
                learnt.codes.setdefault(word, len(learnt.codes) + 1)
    elif spec.code == "bin":
        learnt.edges = _bins(np.array([number(cell, name) for cell in present]), spec, name)
    elif spec.code == "pass" and spec.dummy:  # numbers 1 to n already
        largest = max((int(number(cell, name)) for cell in present), default=0)
        learnt.codes = {str(code): code for code in range(1, largest + 1)}
    return learnt


def _replacement(present: list[Any], spec: ColumnSpec, name: str) -> Any:
    if spec.impute == "constant":
        return spec.constant
    if not present:
        raise DMLValueError(f"Column {name!r} has missing cells only; {spec.impute} cannot fill them.")
    if spec.impute == "global_mode":
        return Counter(present).most_common(1)[0][0]
    return float(np.mean([number(cell, name) for cell in present]))


def _bins(cells: Any, spec: ColumnSpec, name: str) -> list[tuple[float, float]]:
    if not len(cells):
        raise DMLValueError(f"Column {name!r} has no numbers to make bins of.")
    if spec.method == "equi-width":
        edges = np.linspace(cells.min(), cells.max(), spec.bins + 1)
    else:
        ordered = np.sort(cells)
        places = np.ceil(np.arange(1, spec.bins + 1) * len(ordered) / spec.bins).astype(int) - 1
        edges = np.concatenate([ordered[:1], ordered[places]])
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def number(cell: Any, name: str) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        raise DMLTypeError(f"Column {name!r} holds {cell!r}, which is no number.", hint="Recode the column.") from None


def apply(cells: list[Any], learnt: LearntColumn) -> Any:
    """The column as numbers; NaN for what is missing or was not seen when it was learnt."""
    spec = learnt.spec
    if learnt.replacement is not None:
        cells = [learnt.replacement if missing(cell) else cell for cell in cells]
    if spec.code in ("recode", "vector"):
        return np.array(
            [float("nan") if missing(cell) else learnt.codes.get(token(cell), float("nan")) for cell in cells]
        )
    if spec.code == "hash":
        return np.array([float("nan") if missing(cell) else abs(hash_code(cell)) % spec.hashed + 1.0 for cell in cells])
    numbers = np.array([float("nan") if missing(cell) else number(cell, learnt.name) for cell in cells])
    if spec.code == "bin":
        upper = np.array([edge[1] for edge in learnt.edges])
        found = np.minimum(np.searchsorted(upper, numbers, side="left"), len(upper) - 1) + 1.0
        return np.where(np.isnan(numbers), np.nan, found)
    return numbers


def to_cells(learnt: LearntColumn) -> list[str]:
    """What was learnt, as cells of the metadata frame: ``token·code``, ``low·high`` for bins, the number of hashes."""
    cells = [f"{name}{DOT}{code}" for name, code in learnt.codes.items() if learnt.spec.code in ("recode", "words")]
    cells += [f"{low!r}{DOT}{high!r}" for low, high in learnt.edges]
    if learnt.spec.code == "pass" and learnt.spec.dummy:
        cells.append(f"{DOT}{len(learnt.codes)}")
    if learnt.spec.code == "hash":
        cells.append(str(learnt.spec.hashed))
    if learnt.replacement is not None:
        cells.insert(0, f"{IMPUTED}{DOT}{token(learnt.replacement)}")
    return cells


def from_cells(cells: list[Any], name: str, spec: ColumnSpec) -> LearntColumn:
    """The other way round."""
    learnt = LearntColumn(spec, name)
    for cell in cells:
        if missing(cell):
            continue
        left, found, right = str(cell).rpartition(DOT)
        if not found and spec.code == "hash":
            continue
        if not found:
            raise DMLValueError(f"The metadata of column {name!r} holds {cell!r}, which is none of transformencode.")
        if left == IMPUTED:
            learnt.replacement = right
        elif spec.code in ("recode", "words", "vector"):
            learnt.codes[left] = int(right)
        elif spec.code == "bin":
            learnt.edges.append((float(left), float(right)))
        elif spec.dummy:
            learnt.codes = {str(code): code for code in range(1, int(right) + 1)}
    return learnt
