"""The values of a script: scalars, matrices, frames, lists.

A scalar is Python's float, int, bool or str. A matrix is a two-dimensional array of doubles, dense (`numpy.ndarray`) or sparse
(`scipy.sparse.csr_array`); which of the two is never seen by a script.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from braidwater.dml.scipy_on_demand import issparse, sparse
from braidwater.errors import DMLShapeError, DMLTypeError

Array: TypeAlias = NDArray[Any]
Scalar: TypeAlias = float | int | bool | str
Matrix: TypeAlias = Any  # numpy.ndarray | scipy.sparse.csr_array: scipy's types are not known to the type checker

SPARSE_BELOW = 0.4  # of the cells filled: above it CSR takes more memory than a dense array, and operators more time
# cells: below it a cell-wise operation costs 3 to 10 times more in CSR, and products little less
SMALLEST_SPARSE = 16384
# scipy's own question takes a microsecond, and is asked often
NEVER_SPARSE = frozenset({np.ndarray, float, int, bool, str})


def is_sparse(value: Any) -> bool:
    """Whether `value` is a sparse matrix."""
    return type(value) not in NEVER_SPARSE and bool(issparse(value))


def is_streamed(value: object) -> bool:
    """Whether `value` is a matrix that lies in a table and is read block by block (`runtime.streamed.TableMatrix`)."""
    return getattr(value, "is_streamed_matrix", False)


def is_matrix(value: object) -> bool:
    """Whether `value` is a matrix held in memory."""
    return type(value) is np.ndarray or isinstance(value, np.ndarray) or is_sparse(value)


def dense(matrix: Matrix) -> Matrix:
    """The matrix as an array, at the cost of a copy where it is sparse."""
    return matrix.toarray() if is_sparse(matrix) else matrix


def well_formed(matrix: Matrix) -> Matrix:
    """What any operator left, as doubles, two-dimensional, and sparse only where that is worth it."""
    if is_sparse(matrix):
        matrix = sparse.csr_array(matrix, dtype=np.float64)
        return matrix if matrix.nnz < SPARSE_BELOW * matrix.shape[0] * matrix.shape[1] else matrix.toarray()
    return np.asarray(matrix, dtype=np.float64)


def count_nonzero(matrix: Matrix) -> int:
    """Cells that are not zero; NaN is not zero."""
    return int(matrix.count_nonzero()) if is_sparse(matrix) else int(np.count_nonzero(matrix))


SCHEMA = {"double": "FP64", "int": "INT64", "boolean": "BOOLEAN", "string": "STRING"}
_STORED: dict[str, Any] = {"double": np.float64, "int": np.int64, "boolean": np.bool_, "string": object}


@dataclass
class Frame:
    """A table whose columns have types: double, int, boolean or string.

    Columns are arrays of equal length; strings are Python's, and None is a missing cell of a string column (NaN of a double one).
    """

    columns: list[np.ndarray[Any, Any]]
    names: list[str]
    types: list[str]

    @staticmethod
    def of(columns: Iterable[Any], names: Sequence[str] | None = None, types: Sequence[str] | None = None) -> Frame:
        """A frame from columns; names are C1, C2, ... and types follow from the arrays where they are left out."""
        arrays = [np.asarray(column) for column in columns]
        found = list(types) if types is not None else [_type_of(array) for array in arrays]
        stored = [_typed(array, kind) for array, kind in zip(arrays, found, strict=True)]
        return Frame(stored, list(names) if names is not None else [f"C{i + 1}" for i in range(len(arrays))], found)

    @property
    def shape(self) -> tuple[int, int]:
        return (len(self.columns[0]) if self.columns else 0, len(self.columns))

    def take(self, rows: Any, columns: Sequence[int]) -> Frame:
        """Rows (a slice, mask or numbers) and columns (numbers, from 0)."""
        return Frame(
            [self.columns[c][rows] for c in columns], [self.names[c] for c in columns], [self.types[c] for c in columns]
        )

    def to_matrix(self) -> Matrix:
        """The cells as numbers.

        Raises DMLTypeError with the column and the first cell that is no number.
        """
        rows, width = self.shape
        result = np.empty((rows, width))
        for place, (column, name, kind) in enumerate(zip(self.columns, self.names, self.types, strict=True)):
            result[:, place] = _numbers(column, name) if kind == "string" else column
        return result

    def rows(self) -> Iterator[tuple[Any, ...]]:
        return zip(*(column.tolist() for column in self.columns), strict=True)


class ListValue:
    """An ordered list of values of any kind, each with or without a name. Lists are never changed, only made anew."""

    __slots__ = ("items", "names")

    def __init__(self, items: Iterable[Any], names: Sequence[str | None] | None = None) -> None:
        self.items = tuple(items)
        self.names = tuple(names) if names is not None else (None,) * len(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def position(self, key: str | float) -> int:
        """The place (from 0) of an item by name or by number (from 1)."""
        if isinstance(key, str):
            if key not in self.names:
                known = ", ".join(repr(name) for name in self.names if name) or "none"
                raise DMLShapeError(f"The list has no item {key!r}.", hint=f"Its names are: {known}.")
            return self.names.index(key)
        place = int(key)
        if not 1 <= place <= len(self.items):
            raise DMLShapeError(f"The list has no item {place}: it holds {len(self.items)}.")
        return place - 1

    def replaced(self, place: int, value: Any) -> ListValue:
        return ListValue((*self.items[:place], value, *self.items[place + 1 :]), self.names)


def kind_of(value: object) -> str:
    """How messages call a value: matrix, frame, list, string, boolean, integer or double."""
    if isinstance(value, Frame):
        return "frame"
    if isinstance(value, ListValue):
        return "list"
    if isinstance(value, str):
        return "string"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    return "double" if isinstance(value, float) else "matrix"


def with_article(word: str) -> str:
    """A word as messages say it.

    >>> with_article("integer")
    'an integer'
    """
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _type_of(array: np.ndarray[Any, Any]) -> str:
    return {"f": "double", "i": "int", "u": "int", "b": "boolean"}.get(array.dtype.kind, "string")


def _typed(array: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    if kind == "string":
        texts = [None if cell is None else cell if isinstance(cell, str) else str(cell) for cell in array.tolist()]
        result = np.empty(len(texts), dtype=object)
        result[:] = texts
        return result
    try:
        return array.astype(_STORED[kind], copy=False)
    except (TypeError, ValueError, OverflowError) as error:
        raise DMLTypeError(f"A column of type {kind} cannot hold its cells: {error}.") from None


def _numbers(column: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    result = np.empty(len(column))
    for row, cell in enumerate(column):
        try:
            result[row] = float("nan") if cell in (None, "", "NA", "NaN") else float(cell)
        except ValueError:
            raise DMLTypeError(
                f"Row {row + 1} of the frame's column {name!r} holds {cell!r}, which is no number.",
                hint="Use transformencode to turn categories into numbers.",
            ) from None
    return result
