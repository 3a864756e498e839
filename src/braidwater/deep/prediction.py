"""Predictions of a module, batch by batch, as columns beside those of the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from braidwater.blocks.base import Array
from braidwater.deep.inputs import InputForm, parts
from braidwater.parallel.mixed_precision import autocast

FORWARD_ROWS = 1024  # rows that go through the module at a time: activations of an image take a hundred times its bytes


@dataclass(frozen=True)
class Predictor:
    """A trained module with the form of its input: probabilities of classes, or numbers."""

    module: torch.nn.Module
    form: InputForm
    classes: list[Any] | None

    def __call__(self, features: Array) -> Array:
        """Probabilities ``(rows, classes)`` or predictions ``(rows,)`` in float64, of features ``(rows, ...)``."""
        width = () if self.classes is None else (len(self.classes),)
        found = np.empty((len(features), *width))
        with torch.inference_mode(), autocast(self.form.precision, torch.device("cpu")):
            for part in parts(len(features), FORWARD_ROWS):
                rows = features[part].reshape(-1, *self.form.shape)
                output = self.module(self.form.tensor(rows)).double()
                found[part] = (output.reshape(-1) if self.classes is None else output.softmax(1)).numpy()
        return found


@dataclass(frozen=True)
class AddPredictions:
    """Appends ``prediction`` (and ``probability_<class>``) to a batch; rows that the NULL policy drops get NULL."""

    predictor: Predictor
    schema: pa.Schema

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        features, kept = self.predictor.form.encode(batch)
        columns = prediction_columns(self.predictor(features), self.predictor.classes, self.schema)
        if kept is not None:
            places = pa.array(np.cumsum(kept) - 1, mask=~kept)
            columns = [values.take(places) for values in columns]
        return pa.record_batch([*batch.columns, *columns], schema=self.schema)


def prediction_fields(classes: list[Any] | None) -> list[pa.Field]:
    """The columns that a prediction adds."""
    if classes is None:
        return [pa.field("prediction", pa.float64())]
    return [
        pa.field("prediction", pa.array(classes).type),
        *(pa.field(f"probability_{name}", pa.float64()) for name in classes),
    ]


def prediction_columns(found: Array, classes: list[Any] | None, schema: pa.Schema) -> list[pa.Array]:
    """`prediction_fields`, filled."""
    if classes is None:
        return [pa.array(found)]
    chosen = pa.array(classes, schema.field("prediction").type).take(pa.array(found.argmax(1)))
    return [chosen, *(pa.array(column) for column in np.ascontiguousarray(found.T))]
