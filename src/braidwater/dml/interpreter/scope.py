"""Where names live: the variables of a call, the functions of a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from braidwater.dml.interpreter.liveness import Liveness, Names
from braidwater.dml.syntax import Span, parse
from braidwater.dml.syntax.nodes import Function, Import, Script, Statement
from braidwater.errors import DMLNameError


@dataclass
class Module:
    """A file: its functions, and the files that it imports by name."""

    file: str
    script: Script
    imports: dict[str, Module] = field(default_factory=dict)
    directory: Path = field(default_factory=Path)
    _liveness: dict[Any, Liveness] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_liveness": {}}  # it goes by the identity of statements

    @property
    def functions(self) -> dict[str, Function]:
        return self.script.functions

    def liveness(self, function: Function) -> Liveness:
        return self._live(id(function), function.body, [result.name for result in function.results])

    def liveness_until(self, names: Sequence[str]) -> Liveness:
        """That of the script itself, when `names` are asked for at its end."""
        return self._live(tuple(names), self.script.statements, names)

    def _live(self, key: Any, statements: list[Statement], at_end: Sequence[str]) -> Liveness:
        found = self._liveness.get(key)
        if found is None:
            found = self._liveness[key] = Liveness(statements, at_end)
        return found

    def find(self, name: str) -> tuple[Module, Function] | None:
        """A function by ``name`` or ``namespace::name``."""
        namespace, _, plain = name.rpartition("::")
        module = self.imports.get(namespace) if namespace else self
        function = module.functions.get(plain) if module is not None else None
        return (module, function) if module is not None and function is not None else None


@dataclass
class Scope:
    """The variables of the script, or of one call of a function."""

    module: Module
    liveness: Liveness
    variables: dict[str, Any] = field(default_factory=dict)
    outputs: Sequence[str] = ()  # what the caller asked for by name
    live: Names | None = None  # those of the statement under way; None: all
    recorded: dict[str, list[Any]] | None = None  # matrices whose new cells a parallel loop notes

    def forget(self) -> None:
        """Drop the variables that nobody reads again."""
        if self.live is not None:
            for name in [name for name in self.variables if name not in self.live]:
                del self.variables[name]


class Loader:
    """Reads files that scripts import, each once."""

    def __init__(self, library: tuple[Path, ...]) -> None:
        self._known: dict[Path, Module] = {}
        self._library = library

    @property
    def library(self) -> tuple[Path, ...]:
        """The folders that functions are looked for in."""
        return self._library

    def imported(self, statement: Import, module: Module, directory: Path) -> Module:
        """The file of a ``source`` statement: beside the importing file, in the working directory, or in a folder above."""
        places = [module.directory, directory, *module.directory.resolve().parents]
        for place in places:
            if (place / statement.path).is_file():
                return self.load(place / statement.path)
        raise DMLNameError(
            f"There is no file {statement.path!r}.",
            statement.span,
            hint=f"It was looked for in {module.directory.resolve()}, the folders above it and the working directory.",
        )

    def load(self, path: Path) -> Module:
        path = path.resolve()
        if path not in self._known:
            module = Module(path.name, parse(read_text(path), path.name), directory=path.parent)
            self._known[path] = module  # before its imports: two files may import each other
            self.connect(module, Path())
        return self._known[path]

    def connect(self, module: Module, directory: Path) -> None:
        """Load what a module imports."""
        for statement in module.script.statements:
            if isinstance(statement, Import):
                module.imports[statement.namespace] = self.imported(statement, module, directory)

    def of_library(self, name: str) -> tuple[Module, Function] | None:
        """The function that the library's file ``<name>.dml`` defines as ``m_<name>`` (``f_``, ``s_``) or ``<name>``."""
        for folder in self._library:
            if (folder / f"{name}.dml").is_file():
                module = self.load(folder / f"{name}.dml")
                for prefix in ("m_", "f_", "s_", ""):
                    if f"{prefix}{name}" in module.functions:
                        return module, module.functions[f"{prefix}{name}"]
        return None

    def library_names(self) -> list[str]:
        return sorted({path.stem for folder in self._library for path in folder.glob("*.dml")})


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DMLNameError(f"{path.name} is no text in UTF-8, so that it is no script.") from None


def unknown(kind: str, name: str, known: list[str], span: Span) -> DMLNameError:
    """The error of a name that is not there, with the nearest that is."""
    # the same letters first: rowSums, and not rowSds, for sumrows
    near = [one for one in known if sorted(one.lower()) == sorted(name.lower())]
    near = near or get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"Did you mean {near[0]!r}?" if near else None
    return DMLNameError(f"There is no {kind} {name!r}.", span, hint=hint)
