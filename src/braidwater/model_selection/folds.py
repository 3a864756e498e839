"""How the rows of a table are cut into training and test rows, several times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from braidwater.blocks.base import Array
from braidwater.errors import EmptyTableError, LabelError, OptionError, UnsupportedError
from braidwater.tables import Table
from braidwater.tables.parts import ListedParts, Parts, counted, draw_parts, group_parts, ordered_parts

MAX_LISTED = 10_000_000  # rows for which a splitter of scikit-learn may hold its lists


@dataclass(frozen=True)
class Folds:
    """A table in parts, and which of them are for training and for test in each fold: both ``(folds, parts)``, bool."""

    parts: Parts
    train: Array
    test: Array

    def __len__(self) -> int:
        return len(self.train)

    @property
    def train_rows(self) -> Array:
        """Training rows of each fold ``(folds,)``."""
        rows: Array = self.train @ self.parts.sizes
        return rows

    @property
    def test_rows(self) -> Array:
        """Test rows of each fold ``(folds,)``."""
        rows: Array = self.test @ self.parts.sizes
        return rows


class Splitter(Protocol):
    """Cuts a table into folds, without a look at more than the columns that it names."""

    def cut(self, table: Table, label: str | None, seed: int) -> Folds:
        """The folds of `table`, the same for the same seed."""


@dataclass(frozen=True)
class KFold:
    """Each of `folds` parts of equal size (within one row), drawn at random, is the test of one fold. Reads nothing."""

    folds: int = 5

    def __post_init__(self) -> None:
        _check(self.folds)

    def cut(self, table: Table, label: str | None, seed: int) -> Folds:
        _enough(table, self.folds)
        return _each_once(draw_parts(table, [1.0] * self.folds, seed=seed))


@dataclass(frozen=True)
class StratifiedKFold:
    """`KFold` with the same share of every value of `column` (by default the label) in each fold, within one row.

    A query that counts, and two streams of the column.
    """

    folds: int = 5
    column: str | None = None

    def __post_init__(self) -> None:
        _check(self.folds)

    def cut(self, table: Table, label: str | None, seed: int) -> Folds:
        column = self.column or label
        if column is None:
            raise OptionError("column", None, "a column to stratify by, where there is no label")
        _enough(table, self.folds)
        values, counts = counted(table, column)
        if counts.min() < self.folds:
            rarest = values[int(counts.argmin())].as_py()
            raise LabelError(
                f"Column {column!r} has the value {rarest!r} in {int(counts.min())} rows, too few for {self.folds} folds; "
                f"give fewer folds, or KFold({self.folds}), which does not stratify."
            )
        return _each_once(draw_parts(table, [1.0] * self.folds, seed=seed, stratify=column))


@dataclass(frozen=True)
class GroupKFold:
    """All rows with one value in `column` (a user, a machine) are in one part; each part is the test of one fold.

    Parts are as equal in rows as the groups allow, the largest groups being given out first. One query.
    """

    column: str
    folds: int = 5

    def __post_init__(self) -> None:
        _check(self.folds)

    def cut(self, table: Table, label: str | None, seed: int) -> Folds:
        _enough(table, self.folds)
        return _each_once(group_parts(table, self.column, [1.0] * self.folds, seed=seed))


@dataclass(frozen=True)
class TimeSeriesSplit:
    """Fold i is tested on the rows that follow, in the order of `column`, those that it was trained on.

    The rows are cut into ``folds + 1`` parts of about equal size; fold i trains on the first i. Rows of one time stay together.
    Two queries, one of which sorts the column.
    """

    column: str
    folds: int = 5

    def __post_init__(self) -> None:
        _check(self.folds)

    def cut(self, table: Table, label: str | None, seed: int) -> Folds:
        rows = _enough(table, self.folds + 1)
        parts = ordered_parts(table, self.column, [rows * i // (self.folds + 1) for i in range(1, self.folds + 1)])
        fold, part = np.arange(1, self.folds + 1)[:, None], np.arange(self.folds + 1)[None]
        return Folds(parts, part < fold, part == fold)


def splitter_of(folds: Any, target: str) -> Splitter:
    """A number of folds (stratified where a class is learnt), one of ours, or a splitter of scikit-learn."""
    if isinstance(folds, (int, np.integer)) and not isinstance(folds, bool):
        return StratifiedKFold(int(folds)) if target == "class" else KFold(int(folds))
    if hasattr(folds, "cut"):
        found: Splitter = folds
        return found
    if hasattr(folds, "split"):
        return _Listed(folds)
    raise OptionError(
        "folds", folds, "a number, KFold, StratifiedKFold, GroupKFold, TimeSeriesSplit, or one of scikit-learn"
    )


def is_splitter(value: Any) -> bool:
    """Whether it cuts a table into folds: one of ours, or a splitter of scikit-learn."""
    return hasattr(value, "cut") or (hasattr(value, "split") and hasattr(value, "get_n_splits"))


@dataclass(frozen=True)
class _Listed:
    """The folds that a splitter of scikit-learn lists; its row numbers and the label are held in memory."""

    splitter: Any

    def cut(self, table: Table, label: str | None, seed: int) -> Folds:
        rows = _enough(table, 2)
        if rows > MAX_LISTED:
            raise UnsupportedError(
                f"scikit-learn's splitters list the rows of every fold, and table {table.name!r} has {rows:,}; "
                "take KFold, StratifiedKFold, GroupKFold or TimeSeriesSplit of braidwater.model_selection."
            )
        y = None
        if label is not None:
            y = np.concatenate([np.array(batch.column(0).to_pylist()) for batch in table.read([label])])
        lists = list(self.splitter.split(np.zeros((rows, 1)), y))
        member = np.zeros((rows, 2 * len(lists)), bool)
        for number, (train, test) in enumerate(lists):
            member[train, 2 * number] = member[test, 2 * number + 1] = True
        packed = np.packbits(member, axis=1)
        _, first, parts = np.unique(packed, axis=0, return_index=True, return_inverse=True)
        patterns = member[first]
        return Folds(ListedParts(parts.reshape(-1).astype(np.uint16)), patterns[:, 0::2].T, patterns[:, 1::2].T)


def _each_once(parts: Parts) -> Folds:
    """Every part is the test of one fold, and for training in all others."""
    test = np.eye(len(parts.sizes), dtype=bool)
    return Folds(parts, ~test, test)


def _check(folds: int) -> None:
    if folds < 2:
        raise OptionError("folds", folds, "at least 2")


def _enough(table: Table, parts: int) -> int:
    rows = len(table)
    if rows == 0:
        raise EmptyTableError(f"Table {table.name!r} has no rows; there is nothing to learn from.")
    if rows < parts:
        raise OptionError("folds", parts, f"at most {rows}, the rows of table {table.name!r}")
    return rows


SPLITTERS: Sequence[type] = (KFold, StratifiedKFold, GroupKFold, TimeSeriesSplit)
