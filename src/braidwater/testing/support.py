"""Who can do what, computed from what the implementations declare: the text of ``docs/support.md``."""

from __future__ import annotations

from importlib import import_module
from inspect import isabstract
from typing import Any

from braidwater.encoding import ColumnEncoder
from braidwater.engines import Engine
from braidwater.parallel import STRATEGIES, Strategy, strategy_class
from braidwater.planner.strategies import cost_of
from braidwater.tables import Table

_STRATEGY_HEAD = [
    "strategy",
    "equals one process",
    "repeatable bit for bit",
    "a worker dies",
    "resumes on other numbers of workers",
    "engines",
    "bytes a worker sends in a step",
    "what it does",
]
_LETTERS = "P: bytes of the weights; n: workers; B: rows of a step."
_SHAPES = ("aggregate", "iterate", "map_blocks", "gang", "tasks")


def support_table() -> str:
    """Engines with their shapes of work, strategies, tables and encoders, as Markdown."""
    parts = [
        "# Who can do what",
        "Computed from the declarations of the implementations: `python -m braidwater.testing.support > docs/support.md`.",
        "## Engines\n" + _rows([["engine", *_SHAPES], *map(_engine, _leaves(Engine))]),
        "## Strategies\n" + _rows([_STRATEGY_HEAD, *map(_strategy, STRATEGIES)]) + "\n\n" + _LETTERS,
        "## Tables\n" + _rows([["kind", "what it is"], *map(_described, _leaves(Table))]),
        "## Encoders\n" + _rows([["encoder", "what it is"], *map(_described, _leaves(ColumnEncoder))]),
    ]
    return "\n\n".join(parts) + "\n"


def _engine(kind: type[Engine]) -> list[str]:
    told = kind.capabilities
    return [kind.name, *("yes" if getattr(told, shape) else f"no: {told.notes.get(shape, '')}" for shape in _SHAPES)]


def _strategy(name: str) -> list[str]:
    kind = strategy_class(name)
    yes = {True: "yes", False: "no"}
    lost = {"restart": "starts again from a checkpoint", "continue": "the others go on"}
    return [
        f"`{name}`",
        yes[kind.exact],
        yes[kind().reproducible],
        "–" if not kind.shapes else lost[kind.on_loss],
        yes[kind.resizable],
        "any" if not kind.shapes else ", ".join(_engines_for(kind)),
        cost_of(name).formula,
        _first_line(kind),
    ]


def _engines_for(kind: type[Strategy]) -> list[str]:
    """The engines that can do one of the shapes that a strategy runs as."""
    return [
        engine.name for engine in _leaves(Engine) if any(getattr(engine.capabilities, shape) for shape in kind.shapes)
    ]


def _described(kind: type) -> list[str]:
    return [f"`{kind.__name__}`", _first_line(kind)]


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0]


def _leaves(kind: type) -> list[Any]:
    """The implementations of a contract that come with braidwater, by name."""
    for module in ("engines", "engines.postgres.engine", "engines.spark.engine", "tables.postgres", "tables.spark"):
        import_module(f"braidwater.{module}")
    below: list[Any] = kind.__subclasses__()
    part = kind.__module__.rpartition(".")[0]  # others have tables of their own that nobody else needs to know
    ours = [c for c in below if c.__module__.startswith(f"{part}.") and not isabstract(c)]
    return sorted(ours, key=lambda c: c.__name__)


def _rows(lines: list[list[str]]) -> str:
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "|" + " --- |" * len(lines[0]), *body])


if __name__ == "__main__":
    print(support_table(), end="")
