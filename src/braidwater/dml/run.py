"""Scripts from Python: run once, or prepared and run many times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from braidwater.dml.context import Context
from braidwater.dml.exchange import from_python, to_python
from braidwater.dml.interpreter.arguments import by_name
from braidwater.dml.interpreter.interpreter import Interpreter
from braidwater.dml.interpreter.liveness import Liveness
from braidwater.dml.interpreter.scope import Loader, Module, read_text
from braidwater.dml.runtime.workers import blas
from braidwater.dml.syntax import parse
from braidwater.errors import DMLError, DMLNameError, OptionError
from braidwater.options import parse_bytes

if TYPE_CHECKING:
    from braidwater.engines import Engine

LIBRARY = Path(__file__).parent / "library"


def run(
    script: str | PathLike[str],
    inputs: Mapping[str, Any] | None = None,
    outputs: Sequence[str] | None = None,
    *,
    args: Sequence[Any] = (),
    nvargs: Mapping[str, Any] | None = None,
    strict: bool = False,
    seed: int | None = None,
    memory: int | str | None = None,
    threads: int | None = None,
    library: Sequence[str | PathLike[str]] = (),
    engine: Engine | str | None = None,
    **context: Any,
) -> Results:
    """Run a script in DML (the language of SystemML and SystemDS) once. See `compile` for the options.

    >>> import numpy as np
    >>> run("G = t(X) %*% X", {"X": np.eye(2) * 3})["G"]
    array([[9., 0.],
           [0., 9.]])
    """
    prepared = compile(
        script,
        outputs,
        strict=strict,
        seed=seed,
        memory=memory,
        threads=threads,
        library=library,
        engine=engine,
        **context,
    )
    return prepared(inputs, args=args, nvargs=nvargs)


def compile(  # noqa: A001 - the field's word, used as dml.compile
    script: str | PathLike[str],
    outputs: Sequence[str] | None = None,
    *,
    strict: bool = False,
    seed: int | None = None,
    memory: int | str | None = None,
    threads: int | None = None,
    library: Sequence[str | PathLike[str]] = (),
    engine: Engine | str | None = None,
    **context: Any,
) -> Prepared:
    """Read a script, check it, and prepare it to be run many times.

    `script` is its text, or the path of a file that ends in ``.dml``. `outputs` names the variables that come back; naming few
    saves work, since what nobody reads is not computed. Without it all variables come back. `strict` refuses what SystemDS
    refuses. `seed` decides everything random that has no seed of its own. `memory` bounds what is held at a time (bytes, or
    "2GB"). `library` are folders with further functions, ``<name>.dml`` with a function ``m_<name>``, as those of SystemDS.
    `engine` scans the tables that lie with it, and runs tasks: a PostgreSQL server, Spark, or the address of one (see
    `braidwater.engines.engine_at`), which is then opened for each run.

    Raises DMLSyntaxError with all mistakes of the text.

    >>> import numpy as np
    >>> norm = compile("n = sqrt(sum(x ^ 2))", outputs=["n"])
    >>> norm({"x": np.array([3.0, 4.0])})["n"]
    5.0
    """
    if threads is not None and threads < 1:
        raise OptionError("threads", threads, "at least 1")
    if memory is not None:
        context["memory"] = parse_bytes(memory, "memory") if isinstance(memory, str) else memory
    if threads is not None:
        context["threads"] = threads
    text, file, directory = _source(script)
    loader = Loader((*map(Path, library), LIBRARY))
    module = Module(file, parse(text, file), directory=directory)
    loader.connect(module, Path())
    return Prepared(module, loader, outputs, {"strict": strict, "seed": seed, "engine": engine, **context})


class Prepared:
    """A script that was read; calling it runs it."""

    def __init__(
        self, module: Module, loader: Loader, outputs: Sequence[str] | None, options: Mapping[str, Any]
    ) -> None:
        self.outputs = outputs
        self._module = module
        self._loader = loader
        self._options = dict(options)

    @property
    def inputs(self) -> frozenset[str]:
        """The variables that the script reads before it assigns to them."""
        return Liveness(self._module.script.statements, ()).before

    def lint(self) -> list[DMLError]:
        """Mistakes that can be seen without running it: functions and variables that are not there, arguments that do not fit."""
        from braidwater.dml.lint import lint

        return lint(self._module, self._loader)

    def __call__(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        args: Sequence[Any] = (),
        nvargs: Mapping[str, Any] | None = None,
    ) -> Results:
        """Run the script on `inputs`: numbers, strings, numpy and scipy.sparse matrices, torch tensors, data frames, tables,
        and lists and dicts of them. A one-dimensional array is a column.
        """
        context = self._context()
        try:
            values = {name: from_python(value, name, context) for name, value in (inputs or {}).items()}
            interpreter = Interpreter(context, by_name(args, nvargs or {}), self._loader)
            with blas.held():  # small factorisations take several times the CPU with more threads
                return Results(interpreter.run(self._module, values, self.outputs), context)
        finally:
            context.close()

    def _context(self) -> Context:
        engine = self._options.get("engine")
        if not isinstance(engine, str):
            return Context(**self._options)
        from braidwater.engines import engine_at  # slow to import, and most scripts need no engine

        opened = engine_at(engine)
        return Context(**self._options | {"engine": opened, "opened": [opened]})


class Results(Mapping[str, Any]):
    """What a script computed: numpy arrays (scipy.sparse where sparse), numbers, strings, Arrow tables, lists and dicts."""

    def __init__(self, values: Mapping[str, Any], context: Context) -> None:
        self._values = values
        self.context = context

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            raise DMLNameError(f"There is no output {name!r}.", hint=f"There are {', '.join(self._values) or 'none'}.")
        return to_python(self._values[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def tensor(self, name: str) -> Any:
        """A matrix as a torch tensor of doubles."""
        import torch

        value = self[name]
        return torch.from_numpy(value.toarray() if hasattr(value, "toarray") else value)

    def __repr__(self) -> str:
        return f"<results {', '.join(self._values)}>"


def _source(script: str | PathLike[str]) -> tuple[str, str, Path]:
    """Text, name, and the folder that its imports begin at."""
    if isinstance(script, str) and ("\n" in script or not script.strip().endswith(".dml")):
        return script, "script", Path()
    path = Path(script)
    if not path.is_file():
        raise DMLNameError(f"There is no script {str(path)!r}.")
    return read_text(path), path.name, path.parent


__all__ = ["Prepared", "Results", "compile", "run"]
