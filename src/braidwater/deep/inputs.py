"""What a module gets: a batch of one image a row, or the rows of the design."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from braidwater.blocks.base import Array, Block
from braidwater.blocks.windows import RowForm
from braidwater.encoding import FittedEncoding
from braidwater.encoding.sequence import FittedSequence
from braidwater.encoding.wide import FittedWide
from braidwater.parallel.learner import features_tensor
from braidwater.parallel.mixed_precision import weights_dtype


@dataclass(frozen=True)
class InputForm:
    """How encoded rows become a module's input.

    `shape` is that of one row: ``(width,)`` of the design, or of the image or sequence that is the only feature. Images come as
    they are stored and are multiplied with `scale` on the way into the module; tokens become int64.
    """

    encoding: FittedEncoding
    precision: str = "float32"

    @property
    def whole(self) -> FittedWide | None:
        """The encoder of the image or sequence, where that is the only feature."""
        return self.encoding.whole

    @property
    def tokens(self) -> bool:
        """Whether the module gets token numbers."""
        return isinstance(self.whole, FittedSequence)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.encoding.design.width,) if self.whole is None else self.whole.shape

    @property
    def scale(self) -> float:
        whole = self.whole
        return 1.0 if whole is None or whole.scale is None else whole.scale

    @property
    def rows(self) -> RowForm:
        """The same for mini-batches."""
        whole = self.whole
        dtype = "float64" if self.precision == "float64" else "float32"
        pad = whole.pad if isinstance(whole, FittedSequence) else None
        return RowForm(self.encoding.design, None if whole is None else whole.column, dtype, pad)

    def dense(self, block: Block) -> Array:
        """A block's features, ``(rows, *shape)``."""
        if self.whole is not None:
            return block[self.whole.column]
        return self.encoding.design.dense(block, dtype=self.rows.dtype).T

    def tensor(self, features: Array) -> torch.Tensor:
        """Features as the module gets them."""
        dtype = torch.int64 if self.tokens else weights_dtype(self.precision)
        return features_tensor(np.ascontiguousarray(features), dtype, self.scale)

    def encode(self, batch: pa.RecordBatch) -> tuple[Array, Array | None]:
        """The features of a batch, and which of its rows are in them (None: all)."""
        block, kept = FittedEncoding(self.encoding.features).block(batch)
        return self.dense(block), kept


@dataclass(frozen=True)
class FlatDesign:
    """The same input as a design, for aggregates over features ``(rows, numbers of a row)``, labels and weights."""

    form: InputForm

    @property
    def width(self) -> int:
        return int(np.prod(self.form.shape))

    def dense(self, block: Block, rows: Any = None, **_: Any) -> Array:
        return self.form.dense(block).reshape(block.rows, -1).T

    def labels(self, block: Block) -> Array:
        return self.form.encoding.design.labels(block)

    def weights(self, block: Block) -> Array | None:
        return self.form.encoding.design.weights(block)


def parts(rows: int, size: int) -> Sequence[slice]:
    """Slices of at most `size` rows."""
    return [slice(begin, min(begin + size, rows)) for begin in range(0, rows, size)]
