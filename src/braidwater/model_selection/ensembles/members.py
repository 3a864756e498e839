"""What the members of an ensemble answer, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from braidwater.blocks.base import Array
from braidwater.errors import BudgetError, LabelError, UnsupportedError
from braidwater.options import current_options
from braidwater.tables import Table


@dataclass(frozen=True)
class Members:
    """Fitted models that answer the same question: probabilities of `classes`, or a number where those are None."""

    models: Sequence[Any]
    classes: list[Any] | None

    @staticmethod
    def of(models: Sequence[Any]) -> Members:
        """Models with other classes than the first one's are refused."""
        classes = [_classes_of(model) for model in models]
        for other in classes:
            if (other is None) != (classes[0] is None) or set(other or ()) != set(classes[0] or ()):
                raise UnsupportedError(f"The models answer different questions: classes {classes[0]} and {other}.")
        return Members(models, classes[0])

    @property
    def names(self) -> list[str]:
        """The columns of each member's prediction that are combined."""
        return ["prediction"] if self.classes is None else [f"probability_{name}" for name in self.classes]

    def outputs(self, batch: pa.RecordBatch) -> Array:
        """``(models, rows, classes)``, or ``(models, rows)`` of numbers; NaN where a member has no answer."""
        rows = pa.Table.from_batches([batch])
        found = np.empty((len(self.models), len(self.names), batch.num_rows))
        for place, model in enumerate(self.models):
            made = model.predict(rows).to_arrow()
            for column, name in enumerate(self.names):
                found[place, column] = made.column(name).to_numpy()
        return found[:, 0] if self.classes is None else found.transpose(0, 2, 1)

    def outputs_and_labels(self, rows: Table, label: str) -> tuple[Array, Array]:
        """The same for all rows that every member answers and that have a label: codes of the classes, or numbers."""
        rows.require([label])
        expected = len(self.models) * len(rows) * len(self.names) * 8
        if expected > current_options().memory // 2:
            raise BudgetError(
                f"The answers of {len(self.models)} models for {len(rows):,} rows take {expected:,} bytes, more than half of the "
                "memory option. Give fewer members, or a sample of the rows."
            )
        outputs, labels = [], []
        for batch in rows.read(rows.column_names):
            outputs.append(self.outputs(batch.drop_columns([label])))
            labels.append(self._label(batch.column(label), label))
        answers, known = np.concatenate(outputs, axis=1), np.concatenate(labels)
        kept = np.isfinite(answers.sum(0).reshape(len(known), -1).sum(1)) & np.isfinite(known)
        found = known[kept]
        return answers[:, kept], found if self.classes is None else found.astype(np.intp)

    def _label(self, values: pa.Array, label: str) -> Array:
        if self.classes is None:
            return np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False))
        codes = pc.index_in(values, pa.array(self.classes).cast(values.type))
        unseen = pc.and_(pc.is_null(codes), pc.is_valid(values))
        if pc.any(unseen).as_py():
            value = values.filter(unseen)[0].as_py()
            raise LabelError(f"The label {label!r} has the value {value!r}, which the models have not learnt.")
        return np.asarray(codes.cast(pa.float64()).to_numpy(zero_copy_only=False))


def _classes_of(model: Any) -> list[Any] | None:
    classes = getattr(model, "classes_", None)
    if classes is None and getattr(model, "target", "number") != "number":
        raise UnsupportedError(f"A {type(model).__name__} predicts no label: there is nothing to combine.")
    return None if classes is None else [getattr(value, "item", lambda value=value: value)() for value in classes]
