"""``braidwater dml``: scripts in the language of SystemML and SystemDS."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from braidwater.cli import SCRIPT_MARKS
from braidwater.cli.interrupt import answered_at_once
from braidwater.dml import compile as prepare
from braidwater.errors import DMLError, OptionError


def run(
    script: str,
    words: Sequence[str],
    *,
    explain: str | None = None,
    stats: bool = False,
    lint: bool = False,
    strict: bool = False,
    plain: bool = False,
    seed: int | None = None,
    memory: str | None = None,
    threads: int | None = None,
    library: Sequence[str] = (),
    engine: str | None = None,
) -> None:
    """Run a file. `words` are its arguments, as ``-args 1 x`` or ``-nvargs name=value``."""
    args, nvargs = script_arguments(words)
    context: dict[str, Any] = {"plain": plain}
    if explain is not None or stats:
        from braidwater.dml.explain import Explanation, Statistics

        context["explain"] = None if explain is None else Explanation(explain)  # type: ignore[arg-type]
        context["statistics"] = Statistics() if stats else None
    try:
        prepared = prepare(
            Path(script),
            (),
            strict=strict,
            seed=seed,
            memory=memory,
            threads=threads,
            library=list(library),
            engine=engine,
            **context,
        )
        if lint:
            _show_findings(script, prepared.lint())
            return
        with answered_at_once():
            prepared(args=args, nvargs=nvargs)
    except DMLError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        for part in ("explain", "statistics"):
            if context.get(part) is not None and context[part].text:
                print(context[part].text, file=sys.stderr)


def script_arguments(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """What stands after ``-args`` and ``-nvargs``.

    >>> script_arguments(["-nvargs", "X=a.csv", "reg=0.1", "-args", "5"])
    (['5'], {'X': 'a.csv', 'reg': '0.1'})
    """
    args: list[str] = []
    nvargs: dict[str, str] = {}
    kind = ""
    for word in words:
        if word in SCRIPT_MARKS:
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
        print(finding)
    if findings:
        print(f"{len(findings)} mistake{'s' * (len(findings) != 1)} in {script}.", file=sys.stderr)
        raise SystemExit(1)
    print(f"Nothing found in {script}.")
