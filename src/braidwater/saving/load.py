"""Reading a model back, and refusing what cannot be trusted."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from braidwater.errors import CorruptModelError, ModelFileError, ModelSchemaError, UnsafeModelError
from braidwater.saving.format import DOCUMENT, FORMAT, checksum_of, from_plain, sha256

_PICKLE_ENDINGS = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".dill")
_PICKLE_STARTS = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))


@dataclass(frozen=True)
class Saved:
    """A model as it was saved: what it is, everything that JSON holds, and its arrays."""

    kind: str
    document: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    version: str = "unknown"  # of the braidwater that wrote it


def load_model(path: str | Path, kind: str | Sequence[str] | None = None) -> Saved:
    """The model in the folder `path`, checked before anything of it is used.

    `kind` (one, or several that are welcome) refuses models of other kinds. Nothing is ever unpickled.

    Raises `ModelFileError` (there is none), `UnsafeModelError` (a pickle lies there), `CorruptModelError` (truncated or
    changed since it was saved), `ModelSchemaError` (another kind, or written by a newer version).
    """
    folder = Path(path)
    _refuse_pickles(folder)
    record = _record(folder)
    while True:
        try:
            weights = _weights(folder, record)
            break
        except FileNotFoundError as error:
            current = _record(folder)
            if current == record and not (folder / record["weights"]["file"]).exists():
                raise CorruptModelError(
                    f"The model in {str(folder)!r} lacks its weights; copy the whole folder."
                ) from error
            record = current  # somebody saved between our two reads
    _require_kind(folder, record["kind"], kind)
    return Saved(record["kind"], from_plain(record["document"]), weights, record["braidwater"])


def _refuse_pickles(path: Path) -> None:
    if not path.exists():
        raise ModelFileError(f"There is no model at {str(path)!r}.")
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file() and _is_pickle(file):
            raise UnsafeModelError(
                f"{str(file)!r} is a pickle: loading it could run any code, so it is refused. "
                "A model is model.json beside weights in safetensors; save it anew, or remove the file."
            )
    if not path.is_dir():
        raise ModelFileError(f"{str(path)!r} is a file; a model is the folder that holds {DOCUMENT}.")


def _is_pickle(file: Path) -> bool:
    try:
        with open(file, "rb") as handle:
            start = handle.read(4)
    except FileNotFoundError:  # the temporary file of somebody who saves at this moment
        return False
    if file.suffix.lower() in _PICKLE_ENDINGS or start.startswith(_PICKLE_STARTS):
        return True
    if start != b"PK\x03\x04":
        return False
    try:  # what torch.save writes under any name: a zip with data.pkl inside
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _record(folder: Path) -> dict[str, Any]:
    file = folder / DOCUMENT
    try:
        record = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise ModelFileError(f"There is no model in {str(folder)!r}: it holds no {DOCUMENT}.") from error
    except ValueError as error:
        raise CorruptModelError(f"{str(file)!r} is truncated or damaged ({error}); restore it from a copy.") from error
    if not isinstance(record, dict) or "format" not in record:
        raise CorruptModelError(f"{str(file)!r} is not the document of a braidwater model.")
    if not isinstance(record["format"], int) or record["format"] > FORMAT:
        raise ModelSchemaError(
            f"The model in {str(folder)!r} has format {record['format']} of braidwater {record.get('braidwater')}; "
            f"this version reads up to {FORMAT}. Upgrade braidwater."
        )
    if record.get("checksum") != checksum_of(record):
        raise CorruptModelError(f"{str(file)!r} was changed after it was saved; restore it from a copy.")
    return record


def _weights(folder: Path, record: dict[str, Any]) -> dict[str, NDArray[Any]]:
    import safetensors
    import safetensors.numpy

    expected = record["weights"]
    if Path(expected["file"]).name != expected["file"]:
        raise CorruptModelError(
            f"The model in {str(folder)!r} points at weights outside its folder: {expected['file']!r}."
        )
    data = (folder / expected["file"]).read_bytes()
    if len(data) != expected["bytes"]:
        raise CorruptModelError(
            f"{str(folder / expected['file'])!r} is truncated: {len(data)} bytes of {expected['bytes']}. "
            "Restore it from a copy."
        )
    if sha256(data) != expected["sha256"]:
        raise CorruptModelError(
            f"{str(folder / expected['file'])!r} was changed after it was saved; restore it from a copy."
        )
    try:
        arrays: dict[str, NDArray[Any]] = safetensors.numpy.load(data)
    except safetensors.SafetensorError as error:
        raise CorruptModelError(f"{str(folder / expected['file'])!r} is no safetensors file: {error}.") from error
    return arrays


def _require_kind(folder: Path, found: str, wanted: str | Sequence[str] | None) -> None:
    welcome = (wanted,) if isinstance(wanted, str) else wanted
    if welcome is not None and found not in welcome:
        raise ModelSchemaError(
            f"The model in {str(folder)!r} is of kind {found!r}, and not {' or '.join(map(repr, welcome))}."
        )
