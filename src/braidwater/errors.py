"""Every error that braidwater raises on purpose.

::

    BraidwaterError
    ├── UserError                 what was asked cannot be done; the message says what to change
    │   ├── TableError            a table cannot be found, read or written
    │   │   ├── TableNotFoundError
    │   │   ├── ColumnNotFoundError
    │   │   ├── EmptyTableError
    │   │   └── TableChangedError     rows changed between two passes
    │   ├── DataError             a value that the model cannot use
    │   │   ├── NullValueError
    │   │   ├── InfiniteValueError
    │   │   ├── UnseenCategoryError
    │   │   ├── LabelError            one class only, out of range, not numeric
    │   │   └── ColumnTypeError
    │   ├── OptionError           an option or hyperparameter out of its range
    │   ├── StatementError        an SQL statement that cannot be run; knows line and column
    │   ├── UnsupportedError      this engine or strategy cannot do it; the message names one that can
    │   ├── BudgetError           the plan does not fit into the memory or disk it was given
    │   └── DMLError              a script in the language of matrices; carries file, line and the underlined place
    │       ├── DMLSyntaxError        it cannot be read
    │       ├── DMLNameError          a variable, function, argument or file that is not there
    │       ├── DMLTypeError          a value of the wrong kind
    │       ├── DMLShapeError         matrices whose sizes do not fit, an index out of range
    │       ├── DMLValueError         a value out of its range, a matrix without an inverse
    │       └── DMLStopped            the script called stop
    ├── ModelFileError            a saved model that cannot be trusted or read
    │   ├── UnsafeModelError          holds a pickle
    │   ├── CorruptModelError         truncated or changed after saving
    │   └── ModelSchemaError          made for another table or by another version
    ├── NumericalError            training left the finite numbers
    ├── CacheError                the block cache cannot be written or read back
    ├── CheckpointError           a checkpoint cannot be written
    ├── StudyError                a study's storage cannot be opened, read or written
    ├── WorkerError               a worker failed; carries its traceback and the block
    │   ├── WorkerLostError           a worker process died
    │   ├── BadSignatureError         a message to or from a worker on Spark that nobody has signed
    │   └── TaskTimeoutError          a task took longer than it was given
    └── CancelledError            stopped on request
        └── TaskStopped               raised inside a task that was stopped

Also warnings: `BraidwaterWarning` > `ConvergenceWarning`, `RankDeficientWarning`, `SeparationWarning`, `DataWarning`.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:

    class _Place(Protocol):
        """A place in a script, as an error shows it (`braidwater.dml.syntax.Span`)."""

        @property
        def file(self) -> str: ...

        @property
        def line(self) -> int: ...

        @property
        def column(self) -> int: ...

        def underlined(self) -> str: ...


class BraidwaterError(Exception):
    """The root of the tree above."""


class UserError(BraidwaterError, ValueError):
    """What was asked cannot be done; the message says what to change."""


class TableError(UserError):
    """A table cannot be found, read or written."""


class TableNotFoundError(TableError):
    """No table lies at the address."""


class ColumnNotFoundError(TableError):
    """A column that was named is not in the table.

    >>> print(ColumnNotFoundError("line", "xx", ["x", "y"]))
    Table 'line' has no column 'xx'. Did you mean 'x'?
    """

    def __init__(self, table: str, missing: str, available: Iterable[str]) -> None:
        available = list(available)
        near = get_close_matches(missing, available, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(available)}."
        super().__init__(f"Table {table!r} has no column {missing!r}. {hint}")

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (type(self), self.args, vars(self))


class EmptyTableError(TableError):
    """A table without rows where at least one is needed."""


class TableChangedError(TableError):
    """The rows changed while they were being read in several passes."""


class DataError(UserError):
    """A value in the table that the model cannot use."""


class NullValueError(DataError):
    """NULLs (or NaNs) in a column whose policy is to refuse them.

    >>> print(NullValueError("age", 1, 10, "'drop' or 'mean'"))
    Column 'age' has 1 NULL in 10 rows. Choose nulls='drop' or 'mean', or leave the rows out with a SELECT.
    """

    def __init__(self, column: str, count: int, rows: int, choices: str) -> None:
        self.column = column
        self.choices = choices
        super().__init__(
            f"Column {column!r} has {count} NULL{'s' * (count != 1)} in {rows} rows. Choose nulls={choices}, "
            "or leave the rows out with a SELECT."
        )

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (type(self), self.args, vars(self))


class InfiniteValueError(DataError):
    """Infinities in a numeric column."""


class UnseenCategoryError(DataError):
    """A category that was not there when the encoder was fitted."""


class LabelError(DataError):
    """A label that cannot be learnt: one class only, out of range, of the wrong type."""


class ColumnTypeError(DataError):
    """A column whose type does not fit its use."""


class OptionError(UserError):
    """An option or hyperparameter out of its range.

    >>> print(OptionError("nulls", "skip", "one of refuse, drop, mean, mode"))
    nulls='skip' is not possible; it must be one of refuse, drop, mean, mode.
    """

    def __init__(self, name: str, value: object, must_be: str) -> None:
        super().__init__(f"{name}={value!r} is not possible; it must be {must_be}.")

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (type(self), self.args, vars(self))


class StatementError(UserError):
    """An SQL statement that cannot be parsed or run. `line` and `column` are of the script, from 1; `shown` is the line's text,
    and `at` the column in it.

    >>> print(StatementError("There is no table fish.", 3, 8, "SELECT fish", 8).picture)
    line 3, column 8: There is no table fish.
    SELECT fish
           ^
    """

    def __init__(self, message: str, line: int, column: int, shown: str = "", at: int = 1) -> None:
        self.line, self.column, self.shown, self.at = line, column, shown, at
        super().__init__(message)

    @property
    def picture(self) -> str:
        """The message with its place, and the line with the place marked."""
        mark = "".join("\t" if letter == "\t" else " " for letter in self.shown[: self.at - 1]) + "^"
        return f"line {self.line}, column {self.column}: {self}" + (f"\n{self.shown}\n{mark}" if self.shown else "")

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (type(self), self.args, vars(self))


class UnsupportedError(UserError):
    """This engine, strategy or table cannot do it; the message names one that can."""


class BudgetError(UserError):
    """The plan does not fit into the memory or disk that it was given."""


class DMLError(UserError):
    """A script that cannot be run: what is wrong, where, and what to do.

    `span` is the place in the script, or None as long as nobody has said it (`at`). An operator's kernel does not know
    where it was written; whoever runs it adds the place.

    >>> error = DMLShapeError("X %*% y: 4 x 3 times 4 x 1", hint="The columns of the left are the rows of the right.")
    >>> print(error)
    X %*% y: 4 x 3 times 4 x 1
    The columns of the left are the rows of the right.
    """

    def __init__(self, problem: str, span: _Place | None = None, *, hint: str | None = None) -> None:
        self.problem = problem
        self.span = span
        self.hint = hint
        super().__init__(problem)

    @property
    def file(self) -> str | None:
        return self.span.file if self.span else None

    @property
    def line(self) -> int | None:
        return self.span.line if self.span else None

    @property
    def column(self) -> int | None:
        return self.span.column if self.span else None

    def at(self, span: _Place | None) -> DMLError:
        """This error, with its place where it has none yet."""
        self.span = self.span or span
        return self

    def __str__(self) -> str:
        place = (f"{self.file}:{self.line}:{self.column}: ", self.span.underlined()) if self.span else ("", "")
        return "\n".join(part for part in (place[0] + self.problem, place[1], self.hint) if part)

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (type(self), self.args, vars(self))


class DMLSyntaxError(DMLError):
    """A script that cannot be read. `others` are further mistakes found in the same script."""

    def __init__(self, problem: str, span: _Place | None = None, *, hint: str | None = None) -> None:
        super().__init__(problem, span, hint=hint)
        self.others: list[DMLSyntaxError] = []

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *map(str, self.others)])


class DMLNameError(DMLError):
    """A variable, function, argument or file that is not there."""


class DMLTypeError(DMLError):
    """A value of the wrong kind: a matrix where a number must be, a string that is no number."""


class DMLShapeError(DMLError):
    """Matrices whose sizes do not fit together, or an index beyond a matrix."""


class DMLValueError(DMLError):
    """A value out of its range: a matrix without an inverse, metadata that does not describe the file."""


class DMLStopped(DMLError):  # noqa: N818 - the script ended itself, with its own words
    """The script called ``stop(message)``."""


class ModelFileError(BraidwaterError):
    """A saved model that cannot be trusted or read."""


class UnsafeModelError(ModelFileError):
    """A model folder that holds a pickle, which could run code when loaded."""


class CorruptModelError(ModelFileError):
    """A model file that was truncated or changed after it was saved."""


class ModelSchemaError(ModelFileError):
    """A model made for another table, of another kind, or by a newer version."""


class NumericalError(BraidwaterError, ArithmeticError):
    """Training left the finite numbers; the message names the step and the rows."""


class CacheError(BraidwaterError, OSError):
    """The block cache cannot be written or read back."""


class CheckpointError(BraidwaterError, OSError):
    """A checkpoint cannot be written; training could go on from the one before it."""


class StudyError(BraidwaterError):
    """A study's storage cannot be opened, read or written, or belongs to another search."""


class WorkerError(BraidwaterError, RuntimeError):
    """A worker failed; the message holds the worker, the block and the worker's own traceback."""


class WorkerLostError(WorkerError):
    """A worker process died without a word (killed, out of memory)."""


class BadSignatureError(WorkerError):
    """A message that does not come from where it should: somebody else speaks, or bytes were changed on their way."""


class TaskTimeoutError(WorkerError):
    """A task took longer than it was given; its process was ended."""


class CancelledError(BraidwaterError):
    """Stopped on request."""


class TaskStopped(CancelledError):  # noqa: N818 - it is no error: the task did what it was asked to
    """Raised inside a task where it emits a metric after it was stopped (`RunningTasks.stop`)."""


def _restored(kind: type[BraidwaterError], arguments: tuple[object, ...], facts: dict[str, object]) -> BraidwaterError:
    """An error that crossed a process: its constructor takes other arguments than its message."""
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    error.__dict__.update(facts)
    return error


class BraidwaterWarning(UserWarning):
    """The root of all warnings."""


class ConvergenceWarning(BraidwaterWarning):
    """The optimum was not reached within the allowed passes."""


class RankDeficientWarning(BraidwaterWarning):
    """Columns that others add up to: their coefficients cannot be told apart."""


class SeparationWarning(BraidwaterWarning):
    """A column (or a sum of columns) separates the classes, so a coefficient runs to infinity."""


class DataWarning(BraidwaterWarning):
    """Something about the rows that is legal and seldom meant, such as a constant column."""
