"""Events in a file: a JSON object a line, for programs that read along or afterwards."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from braidwater.events import Event, as_record, listen


@contextmanager
def log_events(path: str | Path, *, append: bool = True) -> Iterator[None]:
    """Write every event of the ``with`` block to `path` as JSON lines, each flushed as it happens.

    NaN and infinities become null, so that every line is strict JSON.
    """
    with open(path, "a" if append else "w", encoding="utf-8") as handle:

        def write(event: Event) -> None:
            handle.write(json.dumps(_strict(as_record(event)), allow_nan=False) + "\n")
            handle.flush()

        with listen(write):
            yield


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _strict(inner) for name, inner in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if hasattr(value, "item"):  # a numpy number
        return _strict(value.item())
    return value
