"""Matrices as triples (row, column, value): the format ``text``, Matrix Market, and libsvm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from braidwater.dml.files.metadata import Metadata
from braidwater.dml.files.parts import parts_of, replacing
from braidwater.dml.scipy_on_demand import io, sparse
from braidwater.dml.values import is_sparse, well_formed
from braidwater.errors import DMLValueError


def read_text(path: Path, metadata: Metadata) -> Any:
    """Lines ``i j value`` with places from 1; what is left out is 0. Needs rows and cols, or takes the largest places."""
    lines = [part.read_text(encoding="utf-8") for part in parts_of(path)]
    rows = [line.split() for text in lines for line in text.splitlines() if line.strip() and line[0] != "%"]
    try:
        triples = np.array([(float(i), float(j), float(v)) for i, j, v in rows]).reshape(-1, 3)
    except ValueError:
        raise DMLValueError(
            f"{path.name} cannot be read as text: each line must hold a row, a column and a number."
        ) from None
    i, j = triples[:, 0].astype(np.int64), triples[:, 1].astype(np.int64)
    shape = (metadata.rows or int(i.max(initial=0)), metadata.cols or int(j.max(initial=0)))
    outside = (i < 1) | (j < 1) | (i > shape[0]) | (j > shape[1])
    if outside.any():
        place = int(np.argmax(outside))
        raise DMLValueError(
            f"{path.name} holds a cell at {i[place]}, {j[place]}, outside of the {shape[0]} x {shape[1]} cells that were said."
        )
    return _compact(sparse.coo_array((triples[:, 2], (i - 1, j - 1)), shape=shape))


def _compact(matrix: Any) -> Any:
    return well_formed(sparse.csr_array(matrix))


def write_text(value: Any, path: Path) -> None:
    cells = sparse.coo_array(value)
    with replacing(path) as place, place.open("w", encoding="utf-8") as file:
        for i, j, cell in zip(cells.row.tolist(), cells.col.tolist(), cells.data.tolist(), strict=True):
            file.write(f"{i + 1} {j + 1} {cell!r}\n")


def read_matrix_market(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            found = io.mmread(file)
    except (ValueError, OverflowError) as error:
        raise DMLValueError(f"{path.name} cannot be read as Matrix Market: {error}.") from None
    return _compact(found) if is_sparse(found) else np.ascontiguousarray(found, dtype=np.float64)


def write_matrix_market(value: Any, path: Path) -> None:
    with replacing(path) as place, place.open("wb") as file:
        io.mmwrite(file, sparse.coo_array(value), field="real", symmetry="general", precision=17)


def read_libsvm(path: Path, metadata: Metadata) -> Any:
    """Lines ``label index:value ...``; the label becomes the last column."""
    from sklearn.datasets import load_svmlight_file

    features = None if metadata.cols is None else metadata.cols - 1
    try:
        cells, labels = load_svmlight_file(str(path), n_features=features, zero_based=False)
    except ValueError as error:
        raise DMLValueError(f"{path.name} cannot be read as libsvm: {error}.") from None
    return _compact(sparse.hstack([cells, labels.reshape(-1, 1)]))


def write_libsvm(value: Any, path: Path) -> None:
    from sklearn.datasets import dump_svmlight_file

    matrix = sparse.csr_array(value)
    with replacing(path) as place:
        dump_svmlight_file(matrix[:, :-1], matrix[:, [-1]].toarray().ravel(), str(place), zero_based=False)
