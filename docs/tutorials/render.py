"""Run a tutorial cell by cell, and write it as a page with what its cells printed.

python docs/tutorials/render.py                    docs/tutorials/building-brains.md
python docs/tutorials/render.py FILE --to FOLDER   another one, or elsewhere

A tutorial is a Python file whose cells begin with ``# %%``, those of text with ``# %% [markdown]``. Below a cell of code stands
what it printed; an SVG text that a cell calls `picture` is shown there too.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braidwater.report.style import STYLE

TUTORIAL = Path(__file__).parent / "building_brains.py"
TEXT, CODE = "# %% [markdown]", "# %%"


@dataclass(frozen=True)
class Cell:
    """A run of text or of code; `line` is where it begins in its file, from 0."""

    code: bool
    source: str
    line: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tutorial", type=Path, nargs="?", default=TUTORIAL)
    parser.add_argument("--to", type=Path, help="the folder to write into (by default the tutorial's)")
    given = parser.parse_args()
    render(given.tutorial, given.to or given.tutorial.parent)


def render(tutorial: Path, folder: Path) -> dict[str, Any]:
    """Write the page, and its pictures beside it. Gives back the names that the tutorial has made."""
    names: dict[str, Any] = {"__name__": "__main__"}
    stem = tutorial.stem.replace("_", "-")
    parts = []
    for number, cell in enumerate(cells(tutorial)):
        parts.append(shown(cell))
        if not cell.code:
            continue
        names.pop("picture", None)
        if printed := run(cell, tutorial, names):
            parts.append(f"```text\n{printed}\n```")
        if "picture" in names:
            file = folder / f"{stem}-{number}.svg"
            file.write_text(alone(names["picture"]) + "\n")
            parts.append(f"![]({file.name})")
    (folder / f"{stem}.md").write_text("\n\n".join(parts) + "\n")
    return names


def cells(tutorial: Path) -> Iterator[Cell]:
    lines = tutorial.read_text().splitlines()
    begins = [number for number, line in enumerate(lines) if line in (TEXT, CODE)]
    for begin, end in zip(begins, [*begins[1:], len(lines)], strict=True):
        code, inside = lines[begin] == CODE, lines[begin + 1 : end]
        source = inside if code else [line.removeprefix("#").removeprefix(" ") for line in inside]
        yield Cell(code, "\n".join(source).strip(), begin + 1)


def shown(cell: Cell) -> str:
    return f"```python\n{cell.source}\n```" if cell.code else cell.source


def run(cell: Cell, tutorial: Path, names: dict[str, Any]) -> str:
    """What the cell prints. Tracebacks show the lines of the tutorial."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile("\n" * cell.line + cell.source, tutorial, "exec"), names)
    return "\n".join(line.rstrip() for line in printed.getvalue().strip("\n").splitlines())


def alone(svg: str) -> str:
    """A picture of a report as a file of its own: with the report's style inside."""
    head, _, rest = svg.partition(">")
    return f"{head}><style>{STYLE} svg {{ background: var(--back); }}</style>{rest}"


if __name__ == "__main__":
    main()
