"""Matrices in HDF5 files, by h5py: one data set of numbers, of the name that ``dataset=`` says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from braidwater.dml.files.metadata import Metadata
from braidwater.dml.files.parts import replacing
from braidwater.dml.values import dense
from braidwater.errors import DMLNameError, DMLValueError
from braidwater.extras import needed_for

DATASET = "systemdsh5"  # what SystemDS calls a matrix that nobody named


def read_hdf5(path: Path, metadata: Metadata) -> Any:
    """The data set that was named, or the only one of the file. One of one dimension is a column.

    Raises DMLNameError where the name is not there or none was said and there are several, DMLValueError for what is no HDF5
    file or holds no numbers in one or two dimensions.
    """
    with needed_for("Reading HDF5"):
        import h5py

    try:
        with h5py.File(path, "r") as file:
            held = _data_sets(file)
            name = _chosen(metadata.dataset, held, path)
            return _as_matrix(np.asarray(held[name]), name, path)
    except OSError as error:
        raise DMLValueError(f"{path.name} cannot be read as HDF5: {error}.") from None


def _data_sets(file: Any) -> dict[str, Any]:
    """All data sets of a file, those in groups too, by their paths without the first slash."""
    import h5py

    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item

    file.visititems(visit)
    return found


def _chosen(name: str | None, held: dict[str, Any], path: Path) -> str:
    there = ", ".join(held) or "none"
    if name is not None and name.lstrip("/") not in held:
        raise DMLNameError(f"{path.name} has no data set {name!r}.", hint=f"Its data sets: {there}.")
    if name is None and len(held) != 1:
        raise DMLNameError(f"{path.name} holds {len(held)} data sets.", hint=f'dataset="..." says which: {there}.')
    return next(iter(held)) if name is None else name.lstrip("/")


def _as_matrix(cells: Any, name: str, path: Path) -> Any:
    if cells.dtype.kind not in "fiub":
        raise DMLValueError(f"The data set {name!r} of {path.name} holds {cells.dtype}, and a matrix numbers.")
    if cells.ndim not in (1, 2):
        raise DMLValueError(f"The data set {name!r} of {path.name} has {cells.ndim} dimensions, and a matrix two.")
    return np.ascontiguousarray(cells.reshape(len(cells), -1), dtype=np.float64)


def write_hdf5(value: Any, path: Path, metadata: Metadata) -> None:
    """A matrix as one data set of doubles, dense and in one piece, as SystemDS reads it."""
    with needed_for("Writing HDF5"):
        import h5py

    with replacing(path) as place, h5py.File(place, "w") as file:
        file.create_dataset(metadata.dataset or DATASET, data=dense(value))
