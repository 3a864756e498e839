"""Checkpoints that one trial takes over from another (see `braidwater.parallel.checkpoint` for what lies in them)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ARGUMENTS = "optimizer_arguments."


def take_over(source: Path, target: Path, parameters: Mapping[str, Any]) -> int | None:
    """Put the newest checkpoint of the folder `source` into `target`; the epochs that it has seen, None where there is none.

    Its files are linked, not copied. The arguments of the optimiser in `parameters` take the place of those in the checkpoint.
    """
    for found in sorted(source.glob("step-*"), reverse=True):
        try:
            shutil.copytree(found, target / found.name, copy_function=_link)
        except (FileNotFoundError, shutil.Error):  # its trial goes on training, and removed it just now
            shutil.rmtree(target, ignore_errors=True)
            continue
        return _changed(target / found.name / "checkpoint.json", parameters)
    return None


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # not on this file system
        shutil.copy2(source, target)


def _changed(path: Path, parameters: Mapping[str, Any]) -> int:
    document = json.loads(path.read_text(encoding="utf-8"))
    changes = {name.removeprefix(_ARGUMENTS): v for name, v in parameters.items() if name.startswith(_ARGUMENTS)}
    for member in document["members"]:
        for group in member["values"].get("optimizer", {}).get("param_groups", []):
            group.update({name: value for name, value in changes.items() if name in group})
    path.unlink()  # it is linked: the other trial's stays as it is
    path.write_text(json.dumps(document), encoding="utf-8")
    return int(document["progress"]["epoch"])
