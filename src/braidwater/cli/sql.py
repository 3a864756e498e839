"""``braidwater sql``: scripts and a shell in which MADlib's functions can be called."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import typer

from braidwater.cli.output import strict
from braidwater.errors import BraidwaterError, StatementError
from braidwater.sql import Connection, connect
from braidwater.sql.calls import overview
from braidwater.sql.script import Statement, is_open, statements

HISTORY = Path.home() / ".braidwater_history"
SHOWN = 1000  # rows of an answer that are printed as a table; --json and --csv print all
HELP = r"""\d          the tables          \d NAME     the columns of a table
\df         the functions       \x          rows below each other, or as a table
\q          leave               \?          this text
Statements end with a semicolon. SELECT madlib.linregr_train(); explains a function."""


def run(file: str | None, command: str | None, database: str, *, as_json: bool, as_csv: bool) -> None:
    """Run a file, a command, what comes in by a pipe, or a shell."""
    write = _write_json if as_json else _write_csv if as_csv else None
    with connect(database) as session:
        shell = Shell(session, write)
        if command is not None:
            shell.script(command, "-c")
        elif file is not None and file != "-":
            shell.script(Path(file).read_text(encoding="utf-8"), file)
        elif file == "-" or not sys.stdin.isatty():
            shell.script(sys.stdin.read(), "standard input")
        else:
            shell.interact()


class Shell:
    """Statements and commands of one session, and how answers are shown."""

    def __init__(self, session: Connection, write: Callable[[Sequence[str], Iterable[Any]], None] | None) -> None:
        self.session = session
        self.write = write
        self.expanded = False

    def script(self, text: str, name: str) -> None:
        """Run all of a text; the first mistake ends it, with exit code 1."""
        for statement in statements(text):
            if not self._run(statement, name):
                raise typer.Exit(1)

    def interact(self) -> None:
        """Read statements from the terminal until \\q or the end of the input."""
        import readline

        with suppress(OSError):
            readline.read_history_file(HISTORY)
        typer.echo(f"braidwater sql. \\? for help, \\q to leave. {len(overview().splitlines())} functions in madlib.")
        held = ""
        try:
            while True:
                try:
                    line = input("......... > " if held else "braidwater> ")
                except EOFError:
                    typer.echo()
                    return
                except KeyboardInterrupt:
                    typer.echo()
                    held = ""
                    continue
                held += line + "\n"
                if line.strip() == "\\q":
                    return
                if not is_open(held):
                    for statement in statements(held):
                        try:
                            self._run(statement, "")
                        except KeyboardInterrupt:  # the statement is rolled back, the session goes on
                            typer.echo("Stopped.", err=True)
                            break
                    held = ""
        finally:
            with suppress(OSError):
                readline.write_history_file(HISTORY)

    def _run(self, statement: Statement, name: str) -> bool:
        try:
            if statement.is_command:
                self._command(statement)
            else:
                self.session.run(statement)
                self._show(statement)
        except BraidwaterError as error:
            place = f"{name}: " if name else ""
            what = error.picture if isinstance(error, StatementError) else f"line {statement.line}: {error}"
            typer.echo(f"Error: {place}{what}", err=True)
            return False
        return True

    def _command(self, statement: Statement) -> None:
        word, *rest = statement.text.split()
        argument = " ".join(rest)
        if word == "\\x":
            self.expanded = argument.lower() in ("on", "1", "true") if argument else not self.expanded
        elif word == "\\df":
            typer.echo(overview())
        elif word == "\\?":
            typer.echo(HELP)
        elif word == "\\q":
            raise typer.Exit
        elif word in ("\\d", "\\dt"):
            self._describe(argument)
        elif word not in ("\\timing", "\\echo", "\\pset", "\\set"):  # psql's own, which change nothing about answers
            message = f"There is no command {word}; \\? lists those that are."
            raise StatementError(message, statement.line, statement.column, statement.text, 1)

    def _describe(self, name: str) -> None:
        if not name:
            self.session.execute(
                "SELECT table_schema AS schema, table_name AS name, table_type AS type FROM information_schema.tables "
                "WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2"
            )
            self._show()
            return
        from braidwater.sql.names import parse_name

        table = parse_name("table", name.rstrip(";"))
        self.session.place.schema(table)
        _write_table(("column", "type"), list(self.session.place.type_names(table).items()))

    def _show(self, statement: Statement | None = None) -> None:
        names = self.session.columns
        if not names or (statement is not None and _is_silent(statement)):
            return
        if self.write is not None:
            self.write(names, iter(self.session.fetchone, None))
            return
        rows = self.session.fetchmany(SHOWN + 1)
        only = rows[0][0] if len(rows) == 1 and len(names) == 1 else None
        if isinstance(only, str) and "\n" in only:
            typer.echo(only)  # help
        elif only == "":
            return  # a function that gives nothing
        elif self.expanded:
            _write_expanded(names, rows[:SHOWN])
        else:
            _write_table(names, rows[:SHOWN])
        if len(rows) > SHOWN:
            typer.echo(f"... and more; the first {SHOWN} rows are shown. --json and --csv print all.", err=True)


def _is_silent(statement: Statement) -> bool:
    """Whether a statement changes something: what DuckDB answers to those is a count."""
    word = statement.text.split(None, 1)[0].lower()
    changes = word in (
        "create",
        "drop",
        "alter",
        "insert",
        "update",
        "delete",
        "copy",
        "set",
        "attach",
        "detach",
        "use",
    )
    return (changes or word in ("begin", "commit", "rollback")) and "returning" not in statement.text.lower()


def _write_table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    cells = [[text(value) for value in row] for row in rows]
    table = Table(*names, box=None, pad_edge=False, header_style="bold")
    for row in cells:
        table.add_row(*row)
    # nothing is cut off or folded where no terminal shows it
    widest = [max(map(len, column)) + 2 for column in zip(names, *cells, strict=True)]
    console = Console() if Console().is_terminal else Console(width=sum(widest) + 2)
    console.print(table, markup=False, highlight=False)
    typer.echo(f"({len(rows)} row{'s' * (len(rows) != 1)})")


def _write_expanded(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    width = max(map(len, names))
    for number, row in enumerate(rows, start=1):
        typer.echo(f"-[ RECORD {number} ]{'-' * max(width - 8 - len(str(number)), 1)}")
        for name, value in zip(names, row, strict=True):
            typer.echo(f"{name:<{width}} | {text(value)}")


def _write_json(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A JSON object a row."""
    for row in rows:
        values = [float(value) if isinstance(value, Decimal) else value for value in row]
        typer.echo(json.dumps(strict(dict(zip(names, values, strict=True))), allow_nan=False))


def _write_csv(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow(["" if value is None else text(value) for value in row])


def text(value: Any) -> str:
    """A value as psql shows it: arrays in braces, nothing for NULL.

    >>> text([1.0, 2.5, None]), text(True), text(None)
    ('{1,2.5,NULL}', 't', '')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, float):
        return repr(value).removesuffix(".0").replace("inf", "Infinity").replace("nan", "NaN")
    if isinstance(value, (list, tuple)):
        return "{" + ",".join("NULL" if one is None else text(one) for one in value) + "}"
    if isinstance(value, bytes):
        return f"\\x{value[:32].hex()}" + ("..." if len(value) > 32 else "")
    return str(value)
