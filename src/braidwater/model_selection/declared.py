"""What the columns of a table are to a model, for plans of trainings that have not begun."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from braidwater.encoding.encoding import Encoding, Features, FittedEncoding
from braidwater.tables import Table


def encoding_for(
    model: Any, rows: Table, label: str | None, features: Features, exclude: Sequence[str]
) -> FittedEncoding:
    """The encoding that ``model.fit(rows, label=...)`` would fit: a trainer's own, or that of an estimator by its target."""
    if hasattr(model, "encode"):
        own: FittedEncoding = model.encode(rows, label, features, exclude)
        return own
    target = getattr(model, "target", "class")
    learnt = label if target != "none" else None
    declared = Encoding(
        features=features,
        exclude=[*exclude, label] if label is not None and learnt is None else exclude,
        label=learnt,
        label_kind="class" if target == "class" else "number",
        nulls=getattr(model, "nulls", "refuse"),
        coding=getattr(model, "coding", "treatment"),
    )
    return declared.fit(rows)
