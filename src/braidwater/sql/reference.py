"""The reference of the functions, as Markdown: ``python -m braidwater.sql.reference docs/sql.md`` writes it into the page."""

from __future__ import annotations

import sys
from pathlib import Path

import braidwater.sql.functions  # noqa: F401 - fills the registry
from braidwater.sql.registry import FUNCTIONS, REQUIRED, Function, sql_text
from braidwater.sql.scalars import SCALARS

BEGIN, END = "<!-- functions: begin -->", "<!-- functions: end -->"


def reference() -> str:
    """A section for each function that is called once, and a table of those that are called row by row."""
    parts = [_section(one) for name in sorted(FUNCTIONS) for one in FUNCTIONS[name]]
    rows = [f"| `{one.signature}` | {one.about} |" for one in SCALARS]
    return "\n\n".join(
        [*parts, "### Functions of a row", "\n".join(["| function | what it gives |", "| --- | --- |", *rows])]
    )


def filled(page: str) -> str:
    """The page with the reference between its marks."""
    head, rest = page.split(BEGIN)
    return f"{head}{BEGIN}\n{reference()}\n{END}{rest.split(END)[1]}"


def _section(function: Function) -> str:
    rows = []
    for one in function.parameters:
        default = "" if one.default is REQUIRED else f"`{sql_text(one.default)}`"
        rows.append(f"| {one.name} | {one.sql_type} | {default} | {one.about.replace('|', '/')} |")
    gives = f" Gives {', '.join(function.columns)}." if function.columns else ""
    head = ["| argument | type | default | what it is |", "| --- | --- | --- | --- |"]
    return "\n".join([f"### {function.name}", f"{function.about}{gives}", "", *head, *rows])


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.write_text(filled(place.read_text(encoding="utf-8")), encoding="utf-8")
