"""``braidwater predict``, ``evaluate`` and ``describe``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer

from braidwater.cli.models import scalars
from braidwater.cli.output import print_figures, print_json
from braidwater.cli.place import place_of
from braidwater.report import load, progress
from braidwater.tables import table as open_table
from braidwater.tables import write_table


def predict(
    path: str, place: str, output: str, *, trust: Sequence[str] = (), engine: str | None = None, json: bool
) -> None:
    """Write the rows with the model's predictions."""
    rows = open_table(place)
    model = _load(path, trust)
    with progress(), place_of(engine, place) as where:
        written = write_table(model.predict(rows, **where), output)
    added = [name for name in written.column_names if name not in rows.column_names]
    if json:
        print_json({"rows": len(written), "output": output, "columns": added})
    else:
        typer.echo(f"{len(written):,} rows with {', '.join(added)} in {output}")


def evaluate(path: str, place: str, *, trust: Sequence[str] = (), engine: str | None = None, json: bool) -> None:
    """Print the metrics of a saved model on a table that has its label."""
    rows = open_table(place)
    model = _load(path, trust)
    with progress(), place_of(engine, place) as where:
        found = dict(model.evaluate(rows, **where))
    metrics, count = scalars(found), int(found.get("rows", len(rows)))
    if json:
        more = {name: value for name, value in found.items() if name not in (*metrics, "rows")}
        print_json({"rows": count, "metrics": metrics, **more})
    else:
        print_figures({"rows": count, **metrics})


def describe(place: str, *, engine: str | None = None, json: bool) -> None:
    """Print what is in a table."""
    from braidwater.stats import describe as describe_table

    with progress(), place_of(engine, place) as where:
        found = describe_table(open_table(place), **where)
    if json:
        print_json(found.to_json())
    else:
        typer.echo(str(found))


def _load(path: str, trust: Sequence[str]) -> Any:
    if not trust:
        return load(path)
    sys.path.insert(0, os.getcwd())  # packages of the user's own lie where the command runs
    return load(path, trust=tuple(trust))
