"""The command line: ``braidwater train | search | predict | evaluate | explain | describe | demo | doctor``."""

from __future__ import annotations


def main() -> None:
    """Run the command that the process was started with, and exit with its code."""
    from braidwater.cli.app import app

    app(prog_name="braidwater")


__all__ = ["main"]
