"""Predictions of many models, each row by the model of its group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.special import expit

from braidwater.blocks.base import Array
from braidwater.encoding.encoding import FittedEncoding
from braidwater.encoding.groups import GroupKeys
from braidwater.estimators.base import TableEstimator
from braidwater.model_selection.model_stack import ModelStack


def prediction_fields(template: Any, model: Any) -> list[pa.Field]:
    """The columns that a prediction adds: those of a model, with a probability for each class of any group."""
    if template.target == "class":
        classes = template.classes_.tolist()
        fields = [pa.field("prediction", pa.array(classes).type)]
        return fields + [pa.field(f"probability_{name}", pa.float64()) for name in classes]
    made = model._columns(np.zeros((1, len(model.feature_names_))))
    return [pa.field(name, values.type) for name, values in made.items()]


@dataclass(frozen=True)
class PredictByGroup:
    """Appends to a batch what the model of each row's group makes of it; NULL where the group has none.

    `classes` ``(groups, classes)`` are those that each group knows, None where no classes are predicted. Linear models of one
    number a row are computed for all groups at once, others group by group (some 50 µs each).
    """

    template: TableEstimator
    stack: ModelStack
    keys: GroupKeys
    classes: Array | None
    encoding: FittedEncoding
    schema: pa.Schema

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        block, kept = self.encoding.block(batch)
        codes = self.keys.codes(batch)
        codes = codes if kept is None else codes[kept]
        features = self.encoding.design.dense(block).T
        there = np.append(self.stack.present, False)[codes]
        fields = list(self.schema)[batch.num_columns :]
        made = self._predicted(features[there], codes[there], fields)
        places = np.flatnonzero(there) if kept is None else np.flatnonzero(kept)[there]
        source = np.full(batch.num_rows, -1, np.int64)
        source[places] = np.arange(len(places))
        index = pa.array(source, mask=source < 0)
        columns = [made[field.name].cast(field.type).take(index) for field in fields]
        return pa.record_batch([*batch.columns, *columns], schema=self.schema)

    def _predicted(self, features: Array, codes: Array, fields: list[pa.Field]) -> dict[str, pa.Array]:
        template: Any = self.template
        coef = self.stack.arrays.get("coef_")
        if coef is None or not self._is_linear(coef):
            return self._one_by_one(features, codes, fields)
        slopes = coef.reshape(len(coef), -1)
        level = self.stack.arrays["intercept_"].reshape(-1)
        z = np.einsum("ij,ij->i", features, slopes[codes]) + level[codes]
        if template.target == "number":
            return {"prediction": pa.array(z)}
        names = template.classes_.tolist()
        p = expit(z)
        chosen = pa.array(names).take(pa.array((z > 0).astype(np.int64)))
        probabilities = {f"probability_{names[0]}": pa.array(expit(-z)), f"probability_{names[1]}": pa.array(p)}
        return {"prediction": chosen} | probabilities

    def _is_linear(self, coef: Array) -> bool:
        if self.template.target == "number":
            return coef.ndim == 2
        return self.classes is not None and self.classes.shape[1] == 2 and coef.shape[1] == 1

    def _one_by_one(self, features: Array, codes: Array, fields: list[pa.Field]) -> dict[str, pa.Array]:
        template: Any = self.template
        order = np.argsort(codes, kind="stable")
        names, begins = np.unique(codes[order], return_index=True)
        parts: dict[str, list[pa.Array]] = {field.name: [] for field in fields}
        for code, begin, end in zip(names.tolist(), begins.tolist(), [*begins[1:].tolist(), len(order)], strict=True):
            model = self.stack.model(code, self.template)
            if self.classes is not None:
                model.classes_ = template.classes_[self.classes[code]]
            made = model._columns(features[order[begin:end]])
            for field in fields:  # a class that the group does not know has no probability
                values = made.get(field.name, pa.array(np.zeros(end - begin)))
                parts[field.name].append(values.cast(field.type))
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        index = pa.array(back)
        return {
            field.name: pa.concat_arrays(parts[field.name]).take(index)
            if parts[field.name]
            else pa.array([], field.type)
            for field in fields
        }
