"""The rows of each fold as tables of their own, whose blocks lie in one cache for all folds."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from braidwater.blocks import BlockSource
from braidwater.blocks.selected import SelectedStore
from braidwater.encoding import FittedEncoding
from braidwater.encoding.base import FittedColumn
from braidwater.encoding.groups import GROUP, GroupedEncoding
from braidwater.model_selection.rows import RememberedTable
from braidwater.tables import Table
from braidwater.tables.parts import Parts
from braidwater.tables.split import SampledTable

_OF_THE_FOLD = ("center", "scale", "dtype")  # what may differ of an encoder: blocks hold the same values under it


class FoldTable(RememberedTable):
    """The rows of `rows` that are in the `chosen` of its `parts`: a mask over the blocks of `parted`, which are all rows.

    Encoders are fitted on these rows alone. Where one of `shared`, which were fitted on all rows, writes the same values into its
    blocks (numbers always, categories where each is among these rows too), its cache serves; else the rows get one of their own.
    """

    def __init__(self, rows: Table, parts: Parts, chosen: Collection[int], parted: RememberedTable, name: str) -> None:
        super().__init__(SampledTable(rows, parts, chosen, name=name))
        self.parted = parted
        self.chosen = tuple(chosen)
        self.shared: list[GroupedEncoding] = []

    def kept_blocks(self, encoder: Any) -> SelectedStore | None:
        if not isinstance(encoder, FittedEncoding):
            return None
        for shared in self.shared:
            if not _writes_the_same(shared.encoding, encoder):
                continue
            source = BlockSource(self.parted, shared, passes=2, cache="disk")
            if source.store is not None:
                return SelectedStore(source.store, encoder.block_schema, GROUP, self.chosen)
        return None


def _writes_the_same(shared: FittedEncoding, own: FittedEncoding) -> bool:
    known = {column.column: _values(column) for column in shared._all}
    return all(known.get(column.column) == _values(column) for column in own._all)


def _values(column: FittedColumn) -> dict[str, Any]:
    """What decides on the values that an encoder writes."""
    found = column.to_json()
    idle = _OF_THE_FOLD if found.get("policy") == "mode" else (*_OF_THE_FOLD, "mode")
    return {name: value for name, value in found.items() if name not in idle}
