"""The command line: ``braidwater train | search | predict | evaluate | explain | describe | demo | doctor``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

SCRIPT_MARKS = ("-args", "--args", "-nvargs", "--nvargs")


def main() -> None:
    """Run the command that the process was started with, and exit with its code."""
    if sys.argv[1:2] == ["dml"] and is_plain(sys.argv[2:]):
        from braidwater.cli.failures import reported

        reported(_run_script)(sys.argv[2:])
        return
    from braidwater.cli.app import app

    app(prog_name="braidwater")


def is_plain(words: Sequence[str]) -> bool:
    """Whether a script and its own arguments are all that was said: the parser of options takes a third of a short run.

    >>> is_plain(["fit.dml", "-nvargs", "X=a.csv"]), is_plain(["fit.dml", "--stats"])
    (True, False)
    """
    marks = [place for place, word in enumerate(words) if word in SCRIPT_MARKS]
    options = [word for word in words if word.startswith("-") and word not in SCRIPT_MARKS]
    return bool(words) and 0 not in marks and not options


def _run_script(words: Sequence[str]) -> None:
    from braidwater.cli.dml import run

    run(words[0], words[1:])


__all__ = ["main"]
