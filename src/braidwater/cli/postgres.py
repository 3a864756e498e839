"""``braidwater postgres install``, ``uninstall`` and ``doctor``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import typer

from braidwater.cli.output import print_json


def install(address: str, *, grant: Sequence[str]) -> None:
    """Install, and say who may use it."""
    from braidwater.engines.postgres.install import install as run

    run(address, grant=grant)
    _add_scalars(address)
    who = ", ".join(grant) if grant else "superusers only; --grant ROLE lets others"
    typer.echo(f"Installed in the schema braidwater. It may be used by: {who}.")


def _add_scalars(address: str) -> None:
    """The functions of `braidwater sql` that are called row by row."""
    from braidwater.errors import UnsupportedError
    from braidwater.sql.postgres_scalars import install as add_scalars

    try:
        add_scalars(address)
    except UnsupportedError as error:
        typer.echo(f"Not installed: {error}", err=True)
    else:
        typer.echo("Installed linregr_predict and the other functions of a row in the schema madlib.")


def uninstall(address: str) -> None:
    """Remove the schema with all that lies in it."""
    from braidwater.engines.postgres.install import uninstall as run

    run(address)
    from braidwater.sql.postgres_scalars import uninstall as remove_scalars

    remove_scalars(address)
    typer.echo("Removed the schema braidwater with its packed blocks.")


def doctor(address: str, *, json: bool) -> None:
    """Print the findings; exit with 1 when something is missing."""
    from braidwater.engines.postgres.install import doctor as look

    findings = look(address)
    if json:
        print_json({"findings": [asdict(one) for one in findings]})
    else:
        width = max(len(one.name) for one in findings)
        for one in findings:
            typer.echo(f"{'ok' if one.good else '!!'}  {one.name:<{width}}  {one.detail}")
    if not all(one.good for one in findings):
        raise typer.Exit(1)
