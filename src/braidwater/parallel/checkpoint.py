"""Checkpoints: all that is needed to go on as if nothing had happened.

A checkpoint is a folder: ``checkpoint.json`` (where training stands, the states of the random number generators and
whatever of the optimiser is no tensor) and a ``member-<rank>.safetensors`` for each worker. It is written under another
name and renamed when it is whole; the last two are kept. Nothing in it is a pickle.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from braidwater.errors import CorruptModelError, ModelSchemaError, UnsupportedError

KEEP = 2
_FORMAT = 1
_READ_BYTES = 1 << 20


@dataclass
class Progress:
    """Where a training stands: the next step of the current epoch, and the sums that the epoch's record is made of."""

    epoch: int = 0
    step: int = 0  # within the epoch
    steps: int = 0  # since the start
    loss: float = 0.0
    weight: float = 0.0
    seconds: float = 0.0  # of the epoch
    history: list[dict[str, Any]] = field(default_factory=list)
    best_loss: float = float("inf")
    best_epoch: int = 0
    stopped: bool = False


@dataclass(frozen=True)
class MemberState:
    """What a worker writes down: tensors by name, and plain values."""

    tensors: dict[str, torch.Tensor]
    values: dict[str, Any]


class Checkpoints:
    """The checkpoints of one training under `path`. `identity` tells them from those of another training."""

    def __init__(self, path: str | Path, identity: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.identity = json.loads(json.dumps(identity))

    def write_member(self, steps: int, rank: int, state: MemberState) -> None:
        """A worker's part of the checkpoint after `steps` steps. Every worker calls it, then all wait, then `complete`."""
        folder = self._unfinished(steps)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.tensors.items()}
        weights = folder / f"member-{rank}.safetensors"
        save_file(tensors, weights)
        _flush(weights)
        document = {"checksum": _checksum(weights), "values": state.values}
        (folder / f"member-{rank}.json").write_text(json.dumps(document), encoding="utf-8")

    def complete(self, steps: int, size: int, progress: Progress) -> int:
        """Put the checkpoint in place, and remove older ones. Its bytes. Worker 0 calls it."""
        folder = self._unfinished(steps)
        members = [folder / f"member-{rank}.json" for rank in range(size)]
        document = {
            "format": _FORMAT,
            "identity": self.identity,
            "progress": asdict(progress),
            "members": [json.loads(member.read_text(encoding="utf-8")) for member in members],
        }
        for member in members:
            member.unlink()
        (folder / "checkpoint.json").write_text(json.dumps(document), encoding="utf-8")
        _flush(folder / "checkpoint.json")
        written = sum(file.stat().st_size for file in folder.iterdir())
        final = self.path / f"step-{steps:012d}"
        if final.exists():
            shutil.rmtree(final)  # the same step, written again after a restart
        os.replace(folder, final)
        for old in self._finished()[:-KEEP]:
            shutil.rmtree(old, ignore_errors=True)
        return written

    def newest(self, rank: int) -> tuple[Progress, MemberState] | None:
        """Where to go on from, for one worker; None where nothing was written yet."""
        finished = self._finished()
        if not finished:
            return None
        folder = finished[-1]
        try:
            document = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))
            if document["format"] != _FORMAT:
                raise ModelSchemaError(
                    f"The checkpoint {str(folder)!r} has format {document['format']}, this version reads {_FORMAT}. "
                    "Train again with resume=False."
                )
            self._check_identity(folder, document["identity"])
            member = document["members"][rank]
            weights = folder / f"member-{rank}.safetensors"
            if _checksum(weights) != member["checksum"]:
                raise CorruptModelError(
                    f"The checkpoint file {str(weights)!r} was changed or cut off after it was written."
                )
            return Progress(**document["progress"]), MemberState(load_file(weights), member["values"])
        except (OSError, KeyError, TypeError, IndexError, json.JSONDecodeError, SafetensorError) as error:
            raise CorruptModelError(
                f"The checkpoint {str(folder)!r} cannot be read: {error}. Remove that folder."
            ) from error

    def clear(self) -> None:
        """Remove all checkpoints and what was left half written."""
        if self.path.is_dir():
            for folder in [*self.path.glob("step-*"), *self.path.glob(".writing-*")]:
                shutil.rmtree(folder, ignore_errors=True)

    def _check_identity(self, folder: Path, found: Mapping[str, Any]) -> None:
        for name, value in self.identity.items():
            if found.get(name) != value:
                raise ModelSchemaError(
                    f"The checkpoint {str(folder)!r} is of another training: its {name} is {found.get(name)!r}, here it is "
                    f"{value!r}. Give another checkpoint folder, or resume=False to start anew."
                )

    def _finished(self) -> list[Path]:
        return sorted(self.path.glob("step-*")) if self.path.is_dir() else []

    def _unfinished(self, steps: int) -> Path:
        return self.path / f".writing-{steps:012d}"


def split_tensors(tree: Any, name: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """A tree of plain values in which names stand for the tensors, and the tensors by name.

    >>> split_tensors({0: {"step": torch.tensor(3.0), "betas": (0.9, 0.999)}}, "optimizer")
    ({'pairs': [[0, {'step': {'tensor': 'optimizer/0/step'}, 'betas': [0.9, 0.999]}]]},
     {'optimizer/0/step': tensor(3.)})
    """
    if isinstance(tree, torch.Tensor):
        return {"tensor": name}, {name: tree}
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree, {}
    tensors: dict[str, torch.Tensor] = {}

    def visit(key: Any, value: Any) -> Any:
        plain, found = split_tensors(value, f"{name}/{key}")
        tensors.update(found)
        return plain

    if isinstance(tree, Mapping):
        if all(isinstance(key, str) for key in tree):
            return {key: visit(key, value) for key, value in tree.items()}, tensors
        return {"pairs": [[key, visit(key, value)] for key, value in tree.items()]}, tensors
    if isinstance(tree, list | tuple):
        return [visit(place, value) for place, value in enumerate(tree)], tensors
    raise UnsupportedError(
        f"A checkpoint cannot hold {name}, a {type(tree).__name__}: only tensors, numbers, texts, lists and dictionaries."
    )


def join_tensors(tree: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The tree that `split_tensors` took apart (tuples have become lists)."""
    if isinstance(tree, list):
        return [join_tensors(value, tensors) for value in tree]
    if isinstance(tree, dict):
        if set(tree) == {"tensor"}:
            return tensors[tree["tensor"]]
        if set(tree) == {"pairs"}:
            return {key: join_tensors(value, tensors) for key, value in tree["pairs"]}
        return {key: join_tensors(value, tensors) for key, value in tree.items()}
    return tree


def random_state() -> MemberState:
    """The states of the generators that a module may draw from: torch's, Python's and numpy's."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    values = {
        "python": [version, list(numbers), gauss],
        "numpy": [str(kind), [int(k) for k in keys], position, has_gauss, cached],
    }
    return MemberState({"random/torch": torch.get_rng_state()}, values)


def restore_random_state(state: MemberState) -> None:
    """Go on where the generators stood."""
    torch.set_rng_state(state.tensors["random/torch"])
    version, numbers, gauss = state.values["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, position, has_gauss, cached = state.values["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), position, has_gauss, cached))


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while part := file.read(_READ_BYTES):
            value = zlib.crc32(part, value)
    return value


def _flush(path: Path) -> None:
    """Have the file on the disk before its folder is given its name: a name without its content would be taken for good."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
