"""Frames as matrices of numbers, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from braidwater.dml.builtins.base import Caller, builtin
from braidwater.dml.scipy_on_demand import sparse
from braidwater.dml.transform.columns import LearntColumn, apply, from_cells, learn, missing, to_cells, token
from braidwater.dml.transform.spec import ColumnSpec, parse_spec
from braidwater.dml.transform.words import counted, embedded
from braidwater.dml.values import Frame, is_sparse, well_formed
from braidwater.errors import DMLShapeError, DMLValueError, OptionError


@builtin(
    "transformencode(target: frame, spec: string)",
    "[X, meta]: a frame as numbers by a JSON specification (recode, dummycode, bin, impute, omit, hash, bag_of_words), and what "
    "was learnt.",
)
def encode(caller: Caller, target: Frame, spec: str) -> tuple[Any, Frame]:
    specs = parse_spec(spec, target.names)
    _without_vectors(specs, "transformencode")
    cells = [column.tolist() for column in target.columns]
    learnt = [learn(column, name, each) for column, name, each in zip(cells, target.names, specs, strict=True)]
    return _encoded(cells, learnt), _metadata(learnt)


@builtin(
    "transformapply(target: frame, spec: string, meta: frame, embedding: matrix = none)",
    "A frame as numbers, with what transformencode learnt from another. In columns of word_embedding a word becomes the row of "
    "`embedding` that its code in a recoded meta says.",
)
def transform_apply(caller: Caller, target: Frame, spec: str, meta: Frame, embedding: Any = None) -> Any:
    learnt = _learnt(spec, meta, len(target.names))
    if embedding is None:
        _without_vectors([each.spec for each in learnt], "transformapply without an embedding")
    return _encoded([column.tolist() for column in target.columns], learnt, caller.gathered(embedding))


def _without_vectors(specs: Sequence[ColumnSpec], what: str) -> None:
    if any(each.code == "vector" for each in specs):
        hint = 'transformencode with "recode" gives words their codes; transformapply(..., embedding=E) looks their rows up.'
        raise DMLValueError(f"{what} cannot do word_embedding.", hint=hint)


@builtin(
    "transformdecode(target: matrix, spec: string, meta: frame)",
    "The frame that a matrix of transformencode stands for.",
)
def decode(caller: Caller, target: Any, spec: str, meta: Frame) -> Frame:
    learnt = _learnt(spec, meta, len(meta.names))
    for each in learnt:
        if each.spec.code in ("words", "vector"):
            raise DMLValueError(f"Column {each.name!r} was made of words, which cannot be had back from numbers.")
    array, place, columns = caller.array(target), 0, []
    if array.shape[1] != sum(each.width for each in learnt):
        raise DMLShapeError(
            f"The matrix has {array.shape[1]} columns, and the specification makes {sum(each.width for each in learnt)}."
        )
    for each in learnt:
        columns.append(_decoded(array[:, place : place + each.width], each))
        place += each.width
    return Frame.of(
        columns,
        meta.names,
        ["double" if each.spec.code == "pass" and not each.spec.dummy else "string" for each in learnt],
    )


@builtin(
    "transformcolmap(target: frame, spec: string)",
    "A row for each column of the frame: its number, its first and last column in the matrix.",
)
def column_map(caller: Caller, target: Frame, spec: str) -> Any:
    ends = np.cumsum([each.width for each in _learnt(spec, target, len(target.names))])
    begins = np.concatenate([[1], ends[:-1] + 1])
    return np.stack([np.arange(1.0, len(ends) + 1), begins, ends], axis=1)


@builtin(
    "transform(target: frame, transformPath: string, spec: string = none, transformSpec: string = none, "
    "applyTransformPath: string = none, outputNames: string = none)",
    "A frame as numbers, as older scripts ask for it: by the text `spec` or the file `transformSpec` of a specification, or as "
    "applyTransformPath was written before. What was learnt is written to the folder transformPath. transformencode and "
    "transformapply hand it over as a value instead. outputNames has no effect.",
)
def transform(
    caller: Caller, target: Frame, transformPath: str, spec: str | None, transformSpec: str | None,
    applyTransformPath: str | None, outputNames: str | None,
) -> Any:  # fmt: skip
    from braidwater.dml.files.reading import read_value  # slow to import, and few scripts are that old
    from braidwater.dml.files.writing import write_value

    given = {"spec": spec, "transformSpec": transformSpec, "applyTransformPath": applyTransformPath}
    if sum(value is not None for value in given.values()) != 1:
        raise OptionError("spec", spec, f"given, or one of the others: {', '.join(given)}; not several")
    if applyTransformPath is not None:
        text, meta = (read_value(f"{applyTransformPath}/{name}", said, caller.context) for name, said in _FILES.items())
        matrix = transform_apply(caller, target, text, meta)
    else:
        text = spec if transformSpec is None else read_value(transformSpec, _FILES["spec.json"], caller.context)
        matrix, meta = encode(caller, target, text)
    for (name, said), value in zip(_FILES.items(), (text, meta), strict=True):
        options: dict[str, Any] = {option: each for option, each in said.items() if option in ("format", "header")}
        write_value(value, f"{transformPath}/{name}", options, caller.context)
    return matrix


_FILES: dict[str, dict[str, Any]] = {
    "spec.json": {"data_type": "scalar", "value_type": "string"},
    "meta": {"data_type": "frame", "format": "csv", "header": True},
}


def _learnt(spec: str, meta: Frame, width: int) -> list[LearntColumn]:
    if len(meta.names) != width:
        raise DMLShapeError(f"The metadata has {len(meta.names)} columns, and the frame {width}.")
    specs = parse_spec(spec, meta.names)
    return [
        from_cells(column.tolist(), name, each)
        for column, name, each in zip(meta.columns, meta.names, specs, strict=True)
    ]


def _encoded(cells: list[list[Any]], learnt: list[LearntColumn], vectors: Any = None) -> Any:
    rows = len(cells[0]) if cells else 0
    keep = np.ones(rows, dtype=bool)
    for column, each in zip(cells, learnt, strict=True):
        if each.spec.omit:
            keep &= ~np.array([missing(cell) for cell in column])
    parts = [_part(column, each, vectors)[keep] for column, each in zip(cells, learnt, strict=True)]
    if any(is_sparse(part) for part in parts):
        return well_formed(sparse.hstack(parts, format="csr"))
    return np.hstack(parts) if parts else np.zeros((rows, 0))


def _part(column: list[Any], learnt: LearntColumn, vectors: Any) -> Any:
    """The columns of the matrix that one of the frame becomes."""
    if learnt.spec.code == "words":
        return counted([None if missing(cell) else token(cell) for cell in column], learnt.codes)
    codes = apply(column, learnt)
    return embedded(codes, vectors) if learnt.spec.code == "vector" else _spread(codes, learnt)


def _spread(codes: Any, learnt: LearntColumn) -> Any:
    if not learnt.spec.dummy:
        return codes.reshape(-1, 1)
    rows = np.flatnonzero(~np.isnan(codes))
    places = codes[rows].astype(np.int64) - 1
    inside = (places >= 0) & (places < learnt.width)
    rows, places = rows[inside], places[inside]
    return sparse.csr_array(sparse.coo_array((np.ones(len(rows)), (rows, places)), shape=(len(codes), learnt.width)))


def _metadata(learnt: list[LearntColumn]) -> Frame:
    cells = [to_cells(each) for each in learnt]
    height = max([len(column) for column in cells], default=0) or 1
    filled = [[*column, *[None] * (height - len(column))] for column in cells]
    return Frame.of(
        [np.array(column, dtype=object) for column in filled], [each.name for each in learnt], ["string"] * len(learnt)
    )


def _decoded(part: Any, learnt: LearntColumn) -> Any:
    codes = np.where(part.any(axis=1), part.argmax(axis=1) + 1.0, np.nan) if learnt.spec.dummy else part[:, 0]
    if learnt.spec.code == "recode":
        tokens = {code: name for name, code in learnt.codes.items()}
        return np.array([tokens.get(int(code)) if code == code else None for code in codes], dtype=object)
    if learnt.spec.code == "bin":
        middles = {place: (low + high) / 2 for place, (low, high) in enumerate(learnt.edges, 1)}
        return np.array([str(middles[int(code)]) if code == code else None for code in codes], dtype=object)
    return (
        codes
        if not learnt.spec.dummy
        else np.array([str(int(code)) if code == code else None for code in codes], dtype=object)
    )
