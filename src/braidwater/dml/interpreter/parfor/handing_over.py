"""What processes are handed over: the script and its variables. Large matrices go through files that the processes map, so that
they are copied once, whatever the number of processes; where these see no file of this machine, they are sent.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from braidwater.dml.context import Context
from braidwater.dml.interpreter.liveness import Liveness
from braidwater.dml.interpreter.parfor.turns import without_lazy
from braidwater.dml.interpreter.scope import Loader, Module, Scope
from braidwater.dml.values import ListValue, is_matrix
from braidwater.errors import TableError
from braidwater.options import current_options

if TYPE_CHECKING:
    from braidwater.dml.interpreter.interpreter import Interpreter
    from braidwater.engines import Engine

MAPPED = 1 << 20  # bytes from which a matrix is handed over in a file
KEPT = 31 << 20  # bytes up to which freed memory is used again; glibc allows 32 MB


@dataclass(frozen=True)
class InFile:
    """A matrix that a process maps."""

    path: Path


@dataclass(frozen=True)
class Home:
    """What a process needs of an interpreter to make one like it, with one thread and its part of the memory."""

    loader: Loader
    main: Module  # the script itself, whose functions others may call by their names
    arguments: Mapping[str, Any]
    context: Mapping[str, Any]

    @classmethod
    def of(cls, interpreter: Interpreter, workers: int) -> Home:
        context = interpreter.context
        kept = {"strict": context.strict, "plain": context.plain, "directory": context.directory, "threads": 1,
                "memory": max(context.memory // workers, 1)}  # fmt: skip
        return cls(interpreter.loader, interpreter.scopes[0].module, dict(interpreter.arguments), kept)

    def interpreter(self, module: Module, liveness: Liveness, variables: dict[str, Any]) -> Interpreter:
        """In a process: one like it, in a scope of its own."""
        from braidwater.dml.interpreter.interpreter import STACK, Interpreter

        sys.setrecursionlimit(max(sys.getrecursionlimit(), STACK))
        # glibc returns what is freed to the system unless a block as large was freed before: a process that has held no large
        # matrix takes a page fault for every 4 KB of every result (690 a batch of a small net, a third of its time)
        np.empty(KEPT, np.uint8)
        made = Interpreter(Context(**self.context), self.arguments, self.loader)
        made.scopes += [Scope(self.main, liveness), Scope(module, liveness, variables)]
        return made


@contextmanager
def folder_for(engine: Engine, what: str) -> Iterator[Path | None]:
    """A folder that this process and those of the engine's tasks see; None where there is none."""
    place: Path | None = None
    if engine.files_here:
        with suppress(TableError):  # a cluster without a folder of its own
            place = engine.shared_directory or current_options().cache_directory
    if place is None:
        yield None
        return
    (place / what).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=place / what) as folder:
        yield Path(folder)


def handed_over(variables: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """What is sent in place of variables: `taken` gives them back in a process."""
    found: dict[str, Any] = {}
    for name, value in variables.items():
        found[name] = value = without_lazy(value)
        if folder is not None and isinstance(value, np.ndarray) and is_matrix(value) and value.nbytes >= MAPPED:
            found[name] = InFile(folder / f"{len(found)}.npy")
            np.save(found[name].path, value)
    return found


def taken(variables: Mapping[str, Any]) -> dict[str, Any]:
    """In a process: what `handed_over` was given."""
    return {
        name: np.asarray(np.load(value.path, mmap_mode="r")) if isinstance(value, InFile) else arrived(value)
        for name, value in variables.items()
    }


def arrived(value: Any) -> Any:
    """A value that was sent. The type of a sent matrix's cells equals float64 but is not that object, which recorded statements
    ask for: it is slow to compare."""
    if isinstance(value, ListValue):
        return ListValue(map(arrived, value.items), value.names)
    return value.view(np.float64) if isinstance(value, np.ndarray) and value.dtype == np.float64 else value
