"""What ``write`` does: a value into a file, and its side file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from braidwater.dml.context import Context
from braidwater.dml.exchange import to_python
from braidwater.dml.files.coordinates import write_libsvm, write_matrix_market, write_text
from braidwater.dml.files.hdf5 import write_hdf5
from braidwater.dml.files.json_lines import write_json
from braidwater.dml.files.lists import write_list
from braidwater.dml.files.metadata import Metadata, updated, write_metadata
from braidwater.dml.files.parts import replacing
from braidwater.dml.interpreter.printing import text_of
from braidwater.dml.scipy_on_demand import sparse
from braidwater.dml.values import Frame, ListValue, count_nonzero, dense, is_matrix, is_sparse, kind_of, with_article
from braidwater.errors import DMLTypeError, DMLValueError

if TYPE_CHECKING:
    import pyarrow as pa


ENDINGS = {".parquet": "table", ".arrow": "table", ".csv": "csv", ".h5": "hdf5", ".hdf5": "hdf5", ".json": "json",
           ".jsonl": "json", ".ndjson": "json"}  # fmt: skip
"""The formats of files by their endings, where no other is said; of any other ending it is text."""


def write_value(value: Any, address: str, said: Mapping[str, Any], context: Context) -> None:
    """Write a matrix, frame, scalar or list. What was there stays until all is written."""
    if "::" in address or "://" in address:
        _write_table(value, address)
        return
    path = context.directory / address
    metadata = updated(Metadata(), {name: each for name, each in said.items() if name not in ("rows", "cols")}, "write")
    kind = metadata.format or ENDINGS.get(path.suffix, "text")
    if kind == "parquet" and path.suffix == ".parquet":
        kind = "table"
    if isinstance(value, ListValue):
        write_list(value, path, said, lambda item, place, options: write_value(item, place, options, context))
        return
    if isinstance(value, Frame):
        kind = "csv" if kind == "text" else kind
        _write_frame(value, path, kind, metadata)
        described = replace(metadata, data_type="frame", value_type="string", schema=tuple(value.types))
    elif is_matrix(value):
        _write_matrix(value, path, kind, metadata)
        described = replace(metadata, data_type="matrix", nnz=count_nonzero(value))
    else:
        with replacing(path) as place:
            place.write_text(text_of(value) + "\n", encoding="utf-8")
        kind = "text"
        described = Metadata("scalar", {"integer": "int"}.get(kind_of(value), kind_of(value)))
    if kind != "table":
        rows, cols = getattr(value, "shape", (None, None))
        write_metadata(path, replace(described, format=kind, rows=rows, cols=cols))


def _write_matrix(value: Any, path: Path, kind: str, metadata: Metadata) -> None:
    if kind == "csv":
        from braidwater.dml.files.delimited import write_csv  # pyarrow is slow to import

        write_csv(value, path, metadata)
    elif kind == "text":
        write_text(value, path)
    elif kind == "mm":
        write_matrix_market(value, path)
    elif kind == "libsvm":
        write_libsvm(value, path)
    elif kind == "hdf5":
        write_hdf5(value, path, metadata)
    elif kind == "json":
        write_json(value, path)
    elif kind == "binary":
        with replacing(path) as place, place.open("wb") as file:
            if is_sparse(value):
                sparse.save_npz(file, value, compressed=False)
            else:
                np.save(file, value, allow_pickle=False)
    elif kind == "parquet":
        _write_parquet(value, path)
    else:
        _write_table(value, path)


def _write_parquet(value: Any, path: Path) -> None:
    """A file of any name: that of a table would have to end in .parquet."""
    import pyarrow.parquet as pq

    with replacing(path) as place:
        pq.write_table(_table(value), str(place))


def _write_table(value: Any, address: str | Path) -> None:
    from braidwater.tables import write_table  # slow to import, and most files are no tables

    write_table(_table(value), address)


def _write_frame(value: Frame, path: Path, kind: str, metadata: Metadata) -> None:
    if kind == "csv":
        from braidwater.dml.files.delimited import write_csv

        write_csv(value, path, metadata)
    elif kind == "binary":
        import pyarrow.feather as feather

        with replacing(path) as place:
            feather.write_feather(to_python(value), str(place), compression="uncompressed")
    elif kind == "json":
        write_json(value, path)
    elif kind == "parquet":
        _write_parquet(value, path)
    elif kind == "table":
        _write_table(value, path)
    else:
        raise DMLValueError(
            f"A frame cannot be written in the format {kind!r}.",
            hint="Frames are csv, json, binary, or tables such as Parquet.",
        )


def _table(value: Any) -> pa.Table:
    if isinstance(value, Frame):
        return to_python(value)
    if not is_matrix(value):
        raise DMLTypeError(f"A table holds a matrix or frame, and this is {with_article(kind_of(value))}.")
    import pyarrow as pa

    return pa.table({f"C{place + 1}": column for place, column in enumerate(dense(value).T.copy())})
