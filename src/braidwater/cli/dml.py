"""``braidwater dml``: scripts in the language of SystemML and SystemDS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from braidwater.dml import compile as prepare
from braidwater.dml.explain import Explanation, Statistics
from braidwater.errors import DMLError, OptionError


def run(
    script: str,
    words: Sequence[str],
    *,
    explain: str | None,
    stats: bool,
    lint: bool,
    strict: bool,
    plain: bool,
    seed: int | None,
    memory: str | None,
    threads: int | None,
    library: Sequence[str],
) -> None:
    """Run a file. `words` are its arguments, as ``-args 1 x`` or ``-nvargs name=value``."""
    args, nvargs = script_arguments(words)
    context: dict[str, Any] = {"plain": plain}
    if explain is not None:
        context["explain"] = Explanation(explain)  # type: ignore[arg-type]
    if stats:
        context["statistics"] = Statistics()
    try:
        prepared = prepare(
            Path(script), (), strict=strict, seed=seed, memory=memory, threads=threads, library=list(library), **context
        )
        if lint:
            _show_findings(script, prepared.lint())
            return
        prepared(args=args, nvargs=nvargs)
    except DMLError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None
    finally:
        for part in ("explain", "statistics"):
            if part in context and context[part].text:
                typer.echo(context[part].text, err=True)


def script_arguments(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """What stands after ``-args`` and ``-nvargs``.

    >>> script_arguments(["-nvargs", "X=a.csv", "reg=0.1", "-args", "5"])
    (['5'], {'X': 'a.csv', 'reg': '0.1'})
    """
    args: list[str] = []
    nvargs: dict[str, str] = {}
    kind = ""
    for word in words:
        if word in ("-args", "--args", "-nvargs", "--nvargs"):
            kind = word.lstrip("-")
        elif kind == "args":
            args.append(word)
        elif kind == "nvargs" and "=" in word[1:]:
            name, _, value = word.partition("=")
            nvargs[name] = value
        else:
            raise OptionError("argument", word, "-args VALUE ... or -nvargs NAME=VALUE ... behind the script")
    return args, nvargs


def _show_findings(script: str, findings: Sequence[DMLError]) -> None:
    for finding in findings:
        typer.echo(str(finding))
    if findings:
        typer.echo(f"{len(findings)} mistake{'s' * (len(findings) != 1)} in {script}.", err=True)
        raise typer.Exit(1)
    typer.echo(f"Nothing found in {script}.")
