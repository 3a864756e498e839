"""Writing a model: the new one is all there, or the old one is."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from braidwater.errors import ModelFileError
from braidwater.saving.format import (
    DOCUMENT,
    FORMAT,
    WEIGHTS,
    WEIGHTS_PATTERN,
    braidwater_version,
    checksum_of,
    sha256,
    to_plain,
)


def save_model(path: str | Path, kind: str, document: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Path:
    """Save a model into the folder `path`, and return the folder.

    `kind` says what it is (``"logistic_regression"``), `document` is everything that JSON can hold (numpy numbers, NaN
    and infinities included), `arrays` the weights, of any shape and any numeric or boolean dtype.

    A model that is there already is replaced in one step: the weights are written under a name made of their checksum,
    ``model.json`` takes its place by a rename, then the old weights are removed. A crash, a full disk or a kill at any
    moment leaves the old model whole. Two processes that save into one folder take turns.

    Cost: the arrays once more in memory while they are written.

    Raises `ModelFileError` when the folder cannot be written.
    """
    import safetensors.numpy

    folder = Path(path)
    weights = safetensors.numpy.save({name: _storable(name, array) for name, array in arrays.items()})
    digest = sha256(weights)
    name = WEIGHTS.format(digest=digest[:16])
    record = {
        "format": FORMAT,
        "braidwater": braidwater_version(),
        "kind": kind,
        "weights": {"file": name, "bytes": len(weights), "sha256": digest},
        "document": to_plain(dict(document)),
    }
    record["checksum"] = checksum_of(record)
    text = json.dumps(record, indent=1, allow_nan=False).encode()
    with _write_errors(folder), _locked(folder):
        _put(folder / name, weights)
        _put(folder / DOCUMENT, text)
        _remove_stale(folder, keep=name)
    return folder


def _storable(name: str, array: NDArray[Any]) -> NDArray[Any]:
    array = np.asarray(array)
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"Array {name!r} of dtype {array.dtype} cannot be saved; a model's arrays are numbers or booleans."
        )
    # safetensors are little-endian and contiguous; np.ascontiguousarray would turn a scalar into a vector
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def _put(path: Path, data: bytes) -> None:
    """Write `data` to `path` by way of another name, flushed to the disk before and after the rename."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        with open(temporary, "xb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)  # else a power cut may undo the rename and keep the removal of the old weights
    finally:
        os.close(handle)


def _remove_stale(folder: Path, keep: str) -> None:
    """Weights of the model before, and what writers left that were killed."""
    for file in (*folder.glob(WEIGHTS_PATTERN), *folder.glob(".weights-*.tmp"), *folder.glob(f".{DOCUMENT}.*.tmp")):
        if file.name != keep:
            with suppress(OSError):  # the new model is in place: a file that cannot be removed harms nobody
                file.unlink()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone among those who save here: else one's clean-up would remove the weights that the other just wrote."""
    try:
        import fcntl
    except ImportError:  # not on this system; saves into one folder at the same time are then the caller's business
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def _write_errors(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except FileExistsError as error:
        raise ModelFileError(f"Cannot save a model to {str(folder)!r}: a file is in the way. Give a folder.") from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = "the disk is full" if full else str(error.strerror or error)
        raise ModelFileError(
            f"Saving the model to {str(folder)!r} failed: {reason}. A model that was there before is unchanged."
        ) from error
