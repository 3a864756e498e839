"""The rows of a training: encoded, read once from their tables, and kept as blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pyarrow as pa

from braidwater.blocks import BlockSource
from braidwater.deep.inputs import InputForm
from braidwater.deep.losses import find_loss
from braidwater.deep.settings import Settings
from braidwater.encoding import Encoding, FittedEncoding, Numeric
from braidwater.encoding.encoding import Features
from braidwater.engines import Engine
from braidwater.errors import UnsupportedError
from braidwater.parallel import Data
from braidwater.tables import Table

GANG_MEMORY = 32 * 2**20  # blocks up to this size are handed to the members of a gang, larger ones lie in a file


def fit_encoding(
    settings: Settings, rows: Table, label: str, features: Features, exclude: Sequence[str], weight: str | None
) -> FittedEncoding:
    """The encoding of the features and the label, fitted on `rows`."""
    rows.require([label])
    type_ = rows.schema.field(label).type
    number = pa.types.is_floating(type_) or pa.types.is_decimal(type_)
    declared = Encoding(
        features=features,
        exclude=exclude,
        label=label,
        label_kind=find_loss(settings.loss, settings.label_kind, number).target,
        weight=weight,
        nulls=settings.nulls,
        coding="one_hot",
    )
    if settings.standardise and not isinstance(features, Mapping):
        encoders = declared.encoders(rows)
        chosen = {n: _standardised(e) for n, e in encoders.items()}
        declared = Encoding(chosen, (), label, declared.label_kind, weight, None, settings.nulls, "one_hot")
    return declared.fit(rows)


def _standardised(encoder: Any) -> Any:
    """A plain number is centred and scaled; what is declared otherwise stays as it is."""
    return replace(encoder, standardise=True) if isinstance(encoder, Numeric) else encoder


def make_data(
    settings: Settings,
    rows: Table,
    held_out: Table | None,
    encoding: FittedEncoding,
    workers: int,
    engine: Engine,
    stack: ExitStack,
    *,
    folds: bool = False,
) -> Data:
    """The blocks of both tables, made in one pass each. Where the strategy `folds` them, they may stay where they lie."""

    def blocks(of: Table, encoder: FittedEncoding) -> BlockSource:
        source = BlockSource(of, encoder, passes=settings.epochs + 1)
        if workers > 1 and source.expected_bytes > GANG_MEMORY:
            source.close()
            source = BlockSource(of, encoder, passes=settings.epochs + 1, cache="disk")
        stack.enter_context(source)
        if folds:
            engine.place(source)
        else:
            engine.materialise(source)
        return source

    if settings.shuffle and folds and engine.stays(rows):
        raise UnsupportedError(
            f"shuffle=True would take the rows of {rows.name!r} away from where they lie. Give them in a random order: "
            "table(f'{address}::SELECT * FROM … ORDER BY random()')."
        )
    source = blocks(rows, encoding)
    if settings.shuffle:
        source.shuffle(settings.seed, engine.shared_directory)
    assert source.store is not None
    if held_out is None:
        return Data(source.store, source=source)
    checked = encoding.for_evaluation()
    validation = blocks(held_out, checked)
    return Data(source.store, validation.store, InputForm(checked, settings.precision).rows, source, validation)
