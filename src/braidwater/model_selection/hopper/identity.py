"""What two calls of `hop` must have in common for the second to go on from the checkpoints of the first."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from braidwater.errors import CheckpointError, OptionError
from braidwater.model_selection.variants import trainer_settings
from braidwater.tables import Table

_FILE = "hopper.json"
# of a trainer's settings those that say how it runs, or how long
_FREE = (
    "epochs",
    "checkpoint",
    "checkpoint_every",
    "resume",
    "workers",
    "strategy",
    "timeout",
    "max_restarts",
    "device",
)


def keep_identity(
    folder: Path, models: Sequence[Any], rows: Table, partitions: int, seed: int, *, resume: bool
) -> None:
    """Write down in `folder` what is trained there; refuse to go on with something else."""
    now = {
        "partitions": partitions,
        "table": _digest(rows.fingerprint() or f"{rows.name}, {rows.statistics([]).rows} rows"),
        "models": [_digest(_settings(model)) for model in models],
        "seed": seed,
    }
    place = folder / _FILE
    if not resume:
        for old in folder.glob("trial-*"):
            shutil.rmtree(old)
        place.unlink(missing_ok=True)
    if place.is_file():
        _require_same(json.loads(place.read_text(encoding="utf-8")), now, folder)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = place.with_name(f"{_FILE}.new")
        written.write_text(json.dumps(now), encoding="utf-8")
        os.replace(written, place)
    except OSError as error:
        raise CheckpointError(f"Nothing can be written to {str(folder)!r}: {error}. Give another folder.") from error


def _require_same(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    for what, value in now.items():
        if before.get(what) == value:
            continue
        if what == "models":
            pairs = list(zip(before.get(what, ()), now[what], strict=False))
            other = [number for number, (old, new) in enumerate(pairs) if old != new]
            what = f"model {other[0]}" if other else f"number of models ({len(before.get(what, ()))} there)"
        raise OptionError(
            "checkpoint",
            str(folder),
            f"a folder of the same models on the same rows: its {what} is another. resume=False begins anew",
        )


def _settings(model: Any) -> str:
    settings = {name: value for name, value in trainer_settings(model).items() if name not in _FREE}
    return repr({name: _named(value) for name, value in sorted(settings.items())})


def _named(value: Any) -> str:
    """A text that is the same in another process: no addresses."""
    if hasattr(value, "state_dict"):
        return str(value)
    named = getattr(value, "__qualname__", None)
    return f"{getattr(value, '__module__', '')}.{named}" if named else repr(value)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
