"""What ``read`` does: which format a file has, and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from braidwater.dml.context import Context
from braidwater.dml.exchange import frame_of_arrow, from_table
from braidwater.dml.files.coordinates import read_libsvm, read_matrix_market, read_text
from braidwater.dml.files.hdf5 import read_hdf5
from braidwater.dml.files.json_lines import read_json
from braidwater.dml.files.lists import read_list
from braidwater.dml.files.metadata import Metadata, beside, checked, read_metadata, updated
from braidwater.dml.files.parts import missing, parts_of
from braidwater.dml.interpreter.arguments import inferred
from braidwater.dml.values import Frame
from braidwater.errors import DMLValueError

ENDINGS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".mtx": "mm",
    ".mm": "mm",
    ".npy": "binary",
    ".ijv": "text",
    ".libsvm": "libsvm",
    ".svm": "libsvm",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".json": "json",
}


def read_value(address: str, said: Mapping[str, Any], context: Context) -> Any:
    """A matrix, frame or scalar from a file, or a table of any address that `braidwater.table` takes.

    What the call says counts before the side file. Sizes that do not agree with the file are an error.
    """
    if _is_table(address):
        return _of_table(address, updated(Metadata(), said, "read"), context)
    path = context.directory / address
    if not path.exists():
        raise missing(path)
    metadata = updated(read_metadata(path), said, "read")
    _conflicts(path, said)
    if metadata.data_type == "scalar":
        return _scalar(path, metadata)
    if metadata.data_type == "list":
        return read_list(path, metadata, lambda address, options: read_value(address, options, context))
    kind = metadata.format or _format(path)
    if kind in ("table", "parquet"):
        return _of_table(str(path), metadata, context)
    if metadata.data_type == "frame":
        found: Any = _frame(path, kind, metadata)
    else:
        found = _matrix(path, kind, metadata)
    checked(path, metadata, found.shape)
    return found


def _matrix(path: Path, kind: str, metadata: Metadata) -> Any:
    if kind == "csv":
        from braidwater.dml.files.delimited import read_csv_matrix  # pyarrow is slow to import

        return read_csv_matrix(path, metadata)
    if kind == "text":
        return read_text(path, metadata)
    if kind == "mm":
        return read_matrix_market(path)
    if kind == "libsvm":
        return read_libsvm(path, metadata)
    if kind == "hdf5":
        return read_hdf5(path, metadata)
    if kind == "json":
        return read_json(path, metadata).to_matrix()
    return read_binary(path)


def _frame(path: Path, kind: str, metadata: Metadata) -> Frame:
    if kind == "csv":
        from braidwater.dml.files.delimited import read_csv_frame

        return read_csv_frame(path, metadata)
    if kind == "json":
        return read_json(path, metadata)
    if kind == "binary":
        import pyarrow as pa
        import pyarrow.feather as feather

        try:
            return frame_of_arrow(feather.read_table(path))
        except pa.ArrowInvalid as error:
            hint = "The binary format of SystemDS is one of Java; write the frame as csv there."
            raise DMLValueError(
                f"{path.name} is no frame in this package's binary format: {error}.", hint=hint
            ) from None
    raise DMLValueError(
        f"A frame cannot be read from the format {kind!r}.",
        hint="Frames are csv, json, binary, or tables such as Parquet.",
    )


def read_binary(path: Path) -> Any:
    """A matrix that `write` wrote with format="binary": numpy's .npy, or .npz where it is sparse. Nothing is unpickled."""
    from scipy import sparse

    try:
        with path.open("rb") as file:
            begin = file.read(6)
        if begin.startswith(b"PK"):
            return sparse.csr_array(sparse.load_npz(path))
        found = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        hint = "The binary format of SystemDS is one of Java; write the matrix as csv, text or mm there."
        raise DMLValueError(f"{path.name} is no matrix in this package's binary format: {error}.", hint=hint) from None
    if found.ndim != 2:
        raise DMLValueError(f"{path.name} holds an array of {found.ndim} dimensions, and a matrix has two.")
    return np.ascontiguousarray(found, dtype=np.float64)


def _scalar(path: Path, metadata: Metadata) -> Any:
    text = path.read_text(encoding="utf-8").strip()
    found = text if metadata.value_type == "string" else inferred(text)
    if metadata.value_type == "double" and isinstance(found, int) and not isinstance(found, bool):
        return float(found)
    if metadata.value_type in ("double", "int") and isinstance(found, str):
        raise DMLValueError(f"{path.name} holds {text!r}, which is no number.")
    return found


def _is_table(address: str) -> bool:
    return "::" in address or "://" in address


def _format(path: Path) -> str:
    """From the name, else from the first bytes."""
    if path.suffix in ENDINGS:
        return ENDINGS[path.suffix]
    if path.suffix in (".parquet", ".pq", ".arrow", ".feather", ".ipc", ".duckdb", ".jsonl", ".ndjson"):
        return "table"
    first = path
    if path.is_dir():
        parts = sorted(part for part in path.iterdir() if part.name[0] not in "._")
        if not parts:
            raise DMLValueError(f"The folder {path.name} is empty.")
        first = parts[0]
        if first.suffix == ".parquet":
            return "table"
    with first.open("rb") as file:
        begin = file.read(200)
    if begin.startswith(b"%%MatrixMarket"):
        return "mm"
    if begin.startswith((b"\x93NUMPY", b"PK")):
        return "binary"
    if begin.startswith(b"\x89HDF"):
        return "hdf5"
    if begin.lstrip().startswith((b"{", b"[{")):
        return "json"
    if begin.startswith(b"PAR1"):
        return "table"
    line = begin.split(b"\n", 1)[0]
    if b"," not in line and len(line.split()) == 3:
        return "text"
    if b"," in line or len(line.split()) == 1:
        return "csv"
    raise DMLValueError(
        f"The format of {path.name} is not known.", hint=f'Say it: format="csv", or in {beside(path).name}.'
    )


def _of_table(address: str, metadata: Metadata, context: Context) -> Any:
    from braidwater.tables import table as open_table  # slow to import, and most files are no tables
    from braidwater.tables.parquet import ParquetTable

    if metadata.format == "parquet" and not address.endswith(".parquet"):
        table: Any = ParquetTable([str(part) for part in parts_of(Path(address))], name=Path(address).name)
    else:
        table = open_table(address)
    found = frame_of_arrow(table.to_arrow()) if metadata.data_type == "frame" else from_table(table, address, context)
    checked(Path(address), metadata, found.shape)
    return found


def _conflicts(path: Path, said: Mapping[str, Any]) -> None:
    """Sizes that the call says must not be others than those in the side file."""
    known = read_metadata(path)
    for name in ("rows", "cols"):
        wanted, found = said.get(name), getattr(known, name)
        if wanted is not None and found is not None and int(wanted) != found:
            raise DMLValueError(f"read says {name}={int(wanted)}, and {beside(path).name} says {found}.")
