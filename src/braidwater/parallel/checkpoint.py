"""Checkpoints: all that is needed to go on as if nothing had happened.

A checkpoint is a folder: ``checkpoint.json`` (where training stands, the states of the random number generators and
whatever of the optimiser is no tensor) and a ``member-<rank>.safetensors`` for each worker. Of a tensor that the workers
hold together each file has a part, and the JSON says which, so that another number of workers can take it up. Nothing in
it is a pickle.

Training goes on while it is written, from a copy. It is written under another name and renamed when the parts of all
workers are on the disk; the last two are kept. So whatever happens at whatever moment, the newest one is whole.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from braidwater.errors import CheckpointError, CorruptModelError, ModelSchemaError
from braidwater.parallel.member_state import MemberState
from braidwater.parallel.shards import Part

KEEP = 2
_FORMAT = 2
_READ_BYTES = 1 << 20
_LOOK_SECONDS = 0.002  # between two looks for what other workers write
_PATIENCE = 600.0  # seconds to wait for it


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
class Written:
    """A checkpoint that is in place: after which step, its bytes, and the seconds from the copy to the disk."""

    steps: int
    bytes: int
    seconds: float


class Checkpoints:
    """The checkpoints of one training under `path`. `identity` tells them from those of another training."""

    def __init__(self, path: str | Path, identity: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.identity = json.loads(json.dumps(identity))
        self._writing: Future[Written | None] | None = None
        self._closing = Event()

    def write(self, rank: int, size: int, state: MemberState, progress: Progress) -> Written | None:
        """Copy this worker's `state` and begin to write it; `progress` is that of all, and told by worker 0.

        All workers call it after the same steps. One checkpoint is written at a time: what is returned is the one before,
        which this waits for. `CheckpointError` says why that could not be written.
        """
        before = self.wait()
        copied, standing = state.copied(), asdict(progress)
        pool = ThreadPoolExecutor(1, "braidwater-checkpoint")
        self._writing = pool.submit(self._write, rank, size, copied, standing)
        pool.shutdown(wait=False)
        return before

    def written(self) -> Written | None:
        """A checkpoint that has come into place since this was asked last, on worker 0. Errors of writing arrive here."""
        return self.wait() if self._writing is not None and self._writing.done() else None

    def wait(self) -> Written | None:
        """The same, after the end of what is being written."""
        if self._writing is None:
            return None
        writing, self._writing = self._writing, None
        try:
            return writing.result()
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"A checkpoint could not be written to {str(self.path)!r}: {error}. The one before it is whole. Make room, or "
                "give another folder."
            ) from error

    def abandon(self) -> None:
        """End writing without waiting for other workers, when training has failed."""
        self._closing.set()
        if self._writing is not None:
            self._writing.exception()
            self._writing = None

    def _write(self, rank: int, size: int, state: MemberState, progress: dict[str, Any]) -> Written | None:
        begun = time.perf_counter()
        steps = progress["steps"]
        self.write_member(steps, rank, state)
        if rank or not self._all_have_written(steps, size):
            return None
        written = self.complete(steps, size, progress)
        return Written(steps, written, time.perf_counter() - begun)

    def write_member(self, steps: int, rank: int, state: MemberState) -> None:
        """A worker's part of the checkpoint after `steps` steps, to the disk."""
        folder = self._unfinished(steps)
        folder.mkdir(parents=True, exist_ok=True)
        weights = folder / f"member-{rank}.safetensors"
        save_file(state.tensors, weights)
        _flush(weights)
        parts = {name: part.document() for name, part in state.parts.items()}
        document = {"checksum": _checksum(weights), "values": state.values, "parts": parts}
        note = folder / f"member-{rank}.part"
        note.write_text(json.dumps(document), encoding="utf-8")
        os.replace(note, self._note(steps, rank))

    def _all_have_written(self, steps: int, size: int) -> bool:
        """Wait for the notes that `write_member` leaves last; False where training has ended before."""
        waiting, until = set(range(size)), time.monotonic() + _PATIENCE
        while waiting := {rank for rank in waiting if not self._note(steps, rank).exists()}:
            if time.monotonic() > until:
                raise CheckpointError(
                    f"Worker {min(waiting)} did not write its part of the checkpoint after step {steps} within "
                    f"{_PATIENCE:g} s. The one before is whole."
                )
            if self._closing.wait(_LOOK_SECONDS):
                return False
        return True

    def complete(self, steps: int, size: int, progress: dict[str, Any]) -> int:
        """Put the checkpoint in place once all members have written theirs, and remove older ones. Its bytes."""
        folder = self._unfinished(steps)
        notes = [self._note(steps, rank) for rank in range(size)]
        document = {
            "format": _FORMAT,
            "identity": self.identity,
            "progress": progress,
            "members": [json.loads(note.read_text(encoding="utf-8")) for note in notes],
        }
        for note in notes:
            note.unlink()
        (folder / "checkpoint.json").write_text(json.dumps(document), encoding="utf-8")
        _flush(folder / "checkpoint.json")
        _flush(folder)
        written = sum(file.stat().st_size for file in folder.iterdir())
        final = self.path / f"step-{steps:012d}"
        if final.exists():
            self._remove(final)  # the same step, written again after a restart
        os.replace(folder, final)
        _flush(self.path)
        for old in self._finished()[:-KEEP]:
            self._remove(old)
        return written

    def newest(self) -> Checkpoint | None:
        """Where to go on from; None where nothing was written yet."""
        finished = self._finished()
        if not finished:
            return None
        found = Checkpoint(finished[-1])
        found.check_identity(self.identity)
        return found

    def sweep(self) -> None:
        """Remove what was left half written. Worker 0 calls it before any worker writes."""
        for folder in self.path.glob(".writing-*") if self.path.is_dir() else ():
            shutil.rmtree(folder, ignore_errors=True)

    def clear(self) -> None:
        """Remove all checkpoints and what was left half written, those of the parts of a training too."""
        for folder in self._finished():
            self._remove(folder)
        self.sweep()
        for part in {found.parent for found in self.path.glob("*/step-*")}:
            Checkpoints(part, self.identity).clear()

    def _finished(self) -> list[Path]:
        return sorted(self.path.glob("step-*")) if self.path.is_dir() else []

    def _unfinished(self, steps: int) -> Path:
        return self.path / f".writing-{steps:012d}"

    def _note(self, steps: int, rank: int) -> Path:
        return self._unfinished(steps) / f"member-{rank}.json"

    def _remove(self, folder: Path) -> None:
        """Remove a checkpoint, which is none any more when that is broken off half way."""
        hidden = self.path / f".writing-removed-{folder.name}"
        shutil.rmtree(hidden, ignore_errors=True)
        os.replace(folder, hidden)
        shutil.rmtree(hidden, ignore_errors=True)


class Checkpoint:
    """One checkpoint to go on from. Files are checked against their checksums before anything is taken from them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._checked: set[int] = set()
        with self._readable():
            document = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))
            if document["format"] != _FORMAT:
                raise ModelSchemaError(
                    f"The checkpoint {str(folder)!r} has format {document['format']}, this version reads {_FORMAT}. "
                    "Train again with resume=False."
                )
            self.progress = Progress(**document["progress"])
            self._identity = document["identity"]
            self._members = document["members"]

    @property
    def members(self) -> int:
        """The number of workers that wrote it."""
        return len(self._members)

    def member(self, rank: int) -> MemberState:
        """What worker `rank` wrote, but for its parts of tensors held together: `part` reads those."""
        with self._readable():
            values, parts = self._members[rank]["values"], self._parts(rank)
            with self._open(rank) as file:
                tensors = {name: file.get_tensor(name) for name in file.keys() if name not in parts}  # noqa: SIM118
            return MemberState(tensors, values, parts)

    def part(self, name: str, wanted: Part, dtype: torch.dtype) -> torch.Tensor:
        """A part of a tensor that workers held together, put together from what each of them wrote of it."""
        found = torch.empty(wanted.lengths, dtype=dtype)
        missing = found.numel()
        taken: set[tuple[int, ...]] = set()
        with self._readable():
            for rank in range(self.members):
                held = self._parts(rank).get(name)
                if held is None or held.offsets in taken or (both := held.overlap(wanted)) is None:
                    continue
                taken.add(held.offsets)
                with self._open(rank) as file:
                    piece = file.get_slice(name)[both[0]]
                found[both[1]] = piece
                missing -= piece.numel()
        if missing:
            raise CorruptModelError(f"The checkpoint {str(self.folder)!r} lacks {missing} numbers of {name!r}.")
        return found

    def check_identity(self, wanted: Mapping[str, Any]) -> None:
        """Refuse the checkpoint of another training."""
        for name, value in wanted.items():
            if self._identity.get(name) != value:
                raise ModelSchemaError(
                    f"The checkpoint {str(self.folder)!r} is of another training: its {name} is "
                    f"{self._identity.get(name)!r}, here it is {value!r}. Give another checkpoint folder, or resume=False to "
                    "start anew."
                )

    def _parts(self, rank: int) -> dict[str, Part]:
        return {name: Part.of_document(document) for name, document in self._members[rank]["parts"].items()}

    def _open(self, rank: int) -> Any:
        weights = self.folder / f"member-{rank}.safetensors"
        if rank not in self._checked and _checksum(weights) != self._members[rank]["checksum"]:
            raise CorruptModelError(
                f"The checkpoint file {str(weights)!r} was changed or cut off after it was written."
            )
        self._checked.add(rank)
        return safe_open(weights, framework="pt")

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, KeyError, TypeError, IndexError, json.JSONDecodeError, SafetensorError) as error:
            raise CorruptModelError(
                f"The checkpoint {str(self.folder)!r} cannot be read: {error}. Remove that folder."
            ) from error


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while part := file.read(_READ_BYTES):
            value = zlib.crc32(part, value)
    return value


def _flush(path: Path) -> None:
    """Have a file or folder on the disk before anything is given a name for good: a name can get there before its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
