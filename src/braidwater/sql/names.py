"""What the string arguments of a function hold: names of tables, columns and expressions. Parsed, never pasted.

Everything that a caller writes in a string goes through one of the functions below, which parse it in PostgreSQL's dialect and
refuse whatever is not of the kind that is expected. What comes out is a tree of sqlglot, which the engine's dialect writes again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.tokens import TokenType

from braidwater.errors import OptionError

# An expression of the features is evaluated row by row: what reads other tables or other rows has no place in it
_NOT_OF_A_ROW = (
    exp.Query, exp.Subquery, exp.AggFunc, exp.Window, exp.Star, exp.DDL, exp.DML, exp.Command, exp.Placeholder,
    exp.Parameter, exp.Unnest, exp.Lateral, exp.Explode, exp.SessionParameter,
)  # fmt: skip
_TEXTS = (TokenType.STRING, TokenType.HEREDOC_STRING, TokenType.NATIONAL_STRING, TokenType.BYTE_STRING)


@dataclass(frozen=True)
class Name:
    """The name of a table as it was written, and its parts: folded to lower case where they are not in quotes."""

    text: str
    parts: tuple[str, ...]

    @property
    def table(self) -> exp.Table:
        """The name in a statement, quoted."""
        names = [exp.to_identifier(part, quoted=True) for part in reversed(self.parts)]
        return exp.Table(this=names[0], **dict(zip(("db", "catalog"), names[1:], strict=False)))

    def suffixed(self, suffix: str) -> Name:
        """The name of a table that goes with this one: ``model`` and ``_summary`` are ``model_summary``."""
        text = f'{self.text[:-1]}{suffix}"' if self.text.endswith('"') else self.text + suffix
        return Name(text, (*self.parts[:-1], self.parts[-1] + suffix))


def parse_name(argument: str, text: str) -> Name:
    """The table that `text` names.

    >>> parse_name("source_table", 'lake."Big Fish"').parts
    ('lake', 'Big Fish')
    >>> parse_name("source_table", "fish; DROP TABLE fish")
    Traceback (most recent call last):
    braidwater.errors.OptionError: source_table='fish; DROP TABLE fish' is not possible; it must be the name of a table, ...
    """
    must_be = 'the name of a table, schema.table, or "Quoted Name"'
    found = _parsed(argument, text, must_be, prefix="SELECT * FROM ")
    if any(token.comments or token.token_type in _TEXTS for token in sqlglot.tokenize(text, read="postgres")):
        raise OptionError(argument, text, must_be)
    source = found.args.get("from_") if isinstance(found, exp.Select) else None
    table = source.this if source is not None else None
    if not isinstance(table, exp.Table) or not isinstance(table.this, exp.Identifier):
        raise OptionError(argument, text, must_be)
    if {key for key, value in found.args.items() if value and key != "kind"} != {"expressions", "from_"}:
        raise OptionError(argument, text, must_be)
    if {key for key, value in table.args.items() if value} - {"this", "db", "catalog"}:
        raise OptionError(argument, text, must_be)
    parts = tuple(_folded(part) for part in table.parts)
    if len(parts) > 3 or not all(parts):
        raise OptionError(argument, text, must_be)
    return Name(text.strip(), parts)


def parse_expression(argument: str, text: str) -> exp.Expression:
    """The expression over the columns of a row that `text` is.

    >>> parse_expression("independent_varname", "ARRAY[1, tax, log(bath)]").sql("duckdb")
    '[1, tax, LOG(bath)]'
    """
    must_be = "an expression over the columns of the source table, such as price or ARRAY[1, tax, size]"
    found = _parsed(argument, text, must_be, prefix="SELECT ")
    if not isinstance(found, exp.Select) or len(found.expressions) != 1:
        raise OptionError(argument, text, must_be)
    if {key for key, value in found.args.items() if value and key != "kind"} != {"expressions"}:
        raise OptionError(argument, text, must_be)
    expression = found.expressions[0].unalias()
    if isinstance(found.expressions[0], exp.Alias) or expression.find(*_NOT_OF_A_ROW) is not None:
        raise OptionError(argument, text, f"{must_be}: no sub-query, aggregate, window or alias")
    return expression


def parse_columns(argument: str, text: str) -> tuple[str, ...]:
    """The columns of a comma-separated list.

    >>> parse_columns("grouping_cols", 'state, "Year"')
    ('state', 'Year')
    """
    must_be = "names of columns, separated by commas"
    found = _parsed(argument, text, must_be, prefix="SELECT ")
    only = isinstance(found, exp.Select) and {k for k, v in found.args.items() if v and k != "kind"} == {"expressions"}
    columns = found.expressions if only else []
    if not columns or not all(isinstance(c, exp.Column) and len(c.parts) == 1 for c in columns):
        raise OptionError(argument, text, must_be)
    names = tuple(_folded(column.this) for column in columns)
    if len(set(names)) < len(names):
        raise OptionError(argument, text, f"{must_be}, each once")
    return names


def parse_options(argument: str, text: str | None, allowed: dict[str, Any]) -> dict[str, Any]:
    """The values of ``'max_iter=20, tolerance=1e-4'``: `allowed` has every name with its default, whose type it takes.

    >>> parse_options("optimizer_params", "max_iter=7", {"max_iter": 20, "optimizer": "irls"})
    {'max_iter': 7, 'optimizer': 'irls'}
    """
    values = dict(allowed)
    for part in (text or "").split(","):
        if not part.strip():
            continue
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or name not in allowed:
            near = get_close_matches(name, allowed, n=1)
            known = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(allowed)}"
            raise OptionError(argument, text, f"a list of name=value pairs; {name!r} is not known, {known}")
        kind = type(allowed[name])
        try:
            values[name] = kind(value)
        except ValueError as error:
            raise OptionError(f"{argument}: {name}", value, f"a {kind.__name__}") from error
    return values


def match_columns(argument: str, wanted: Sequence[str], available: Sequence[str], table: str) -> tuple[str, ...]:
    """The columns as the table writes them; case counts only where two differ by nothing else."""
    from braidwater.errors import ColumnNotFoundError

    lower: dict[str, list[str]] = {}
    for name in available:
        lower.setdefault(name.lower(), []).append(name)
    found = []
    for name in wanted:
        near = lower.get(name.lower(), [])
        if name not in available and len(near) != 1:
            raise ColumnNotFoundError(table, name, available)
        found.append(name if name in available else near[0])
    return tuple(found)


def _parsed(argument: str, text: str, must_be: str, *, prefix: str) -> exp.Expression:
    if not isinstance(text, str) or not text.strip() or text.strip().lower() == "null":
        raise OptionError(argument, text, must_be)
    try:
        statements = sqlglot.parse(prefix + text, read="postgres")
    except sqlglot.errors.SqlglotError as error:
        raise OptionError(argument, text, f"{must_be}, and cannot be parsed") from error
    if len(statements) != 1 or statements[0] is None:
        raise OptionError(argument, text, must_be)
    return statements[0]


def _folded(part: exp.Expression) -> str:
    text = str(part.this)
    return text if part.args.get("quoted") else text.lower()
