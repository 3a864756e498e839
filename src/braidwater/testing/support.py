"""Who can do what, computed from what the implementations declare: the text of ``docs/support.md``."""

from __future__ import annotations

from importlib import import_module
from inspect import isabstract

from braidwater.encoding import ColumnEncoder
from braidwater.engines import Engine
from braidwater.parallel import STRATEGIES, strategy_class
from braidwater.tables import Table

_SHAPES = ("aggregate", "iterate", "map_blocks", "gang", "tasks")


def support_table() -> str:
    """Engines with their shapes of work, strategies, tables and encoders, as Markdown."""
    parts = [
        "# Who can do what",
        "Computed from the declarations of the implementations: `python -m braidwater.testing.support > docs/support.md`.",
        "## Engines\n" + _rows([["engine", *_SHAPES], *map(_engine, _leaves(Engine))]),
        "## Strategies\n" + _rows([["strategy", "equals one process", "what it does"], *map(_strategy, STRATEGIES)]),
        "## Tables\n" + _rows([["kind", "what it is"], *map(_described, _leaves(Table))]),
        "## Encoders\n" + _rows([["encoder", "what it is"], *map(_described, _leaves(ColumnEncoder))]),
    ]
    return "\n\n".join(parts) + "\n"


def _engine(kind: type[Engine]) -> list[str]:
    told = kind.capabilities
    return [kind.name, *("yes" if getattr(told, shape) else f"no: {told.notes.get(shape, '')}" for shape in _SHAPES)]


def _strategy(name: str) -> list[str]:
    kind = strategy_class(name)
    return [f"`{name}`", "yes" if kind.exact else "no", _first_line(kind)]


def _described(kind: type) -> list[str]:
    return [f"`{kind.__name__}`", _first_line(kind)]


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0]


def _leaves(kind: type) -> list[type]:
    """The implementations of a contract that come with braidwater, by name."""
    import_module("braidwater.engines")
    below: list[type] = kind.__subclasses__()
    ours = [c for c in below if c.__module__.startswith("braidwater.") and not isabstract(c)]
    return sorted(ours, key=lambda c: c.__name__)


def _rows(lines: list[list[str]]) -> str:
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "|" + " --- |" * len(lines[0]), *body])


if __name__ == "__main__":
    print(support_table(), end="")
