"""What is known of a database: which tables lie there, what may be done in it, and what each way would cost."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

from braidwater.aggregates.base import Aggregate
from braidwater.blocks.source import BlockSource
from braidwater.engines.base import Way
from braidwater.engines.postgres.cost import Question, estimates
from braidwater.engines.postgres.packing import Packed
from braidwater.engines.postgres.push_down import pushed_down
from braidwater.engines.postgres.session import facts
from braidwater.engines.postgres.sessions import Sessions, permissions, place_of
from braidwater.errors import UnsupportedError
from braidwater.options import current_options
from braidwater.tables.base import Table
from braidwater.tables.postgres import PostgresTable
from braidwater.tables.split import Sample, SampledTable

Executor = Literal["auto", "sql", "aggregate", "sessions", "copy"]


class Site:
    """The database of an engine with this `executor`. What it knows it asks once, when it is first needed."""

    def __init__(self, sessions: Sessions, executor: Executor) -> None:
        self.sessions = sessions
        self.executor: Executor = executor
        self._facts: dict[str, Any] | None = None

    def has(self, table: Table) -> bool:
        """Whether a table lies in this database."""
        return isinstance(table, PostgresTable) and table.place == self.place

    @cached_property
    def place(self) -> str:
        """Which database of which server this is; as `PostgresTable.place`."""
        return place_of(self.sessions.lead)

    def stays(self, table: Table) -> bool:
        """Whether the rows of a table, or of a sample by numbers of one, can be folded again and again by sessions."""
        rows, sample = sampled(table)
        return self.has(rows) and self._may_stay and (sample is None or not sample.parts.columns)

    @cached_property
    def _may_stay(self) -> bool:
        python, why, may_pack = self._allowed
        if python and not may_pack:
            why = "no table may be created in the schema braidwater"
        elif python and not self.facts["torch"]:
            why = "the server's Python has no torch (pip install torch into the folder that its PYTHONPATH names)"
        if why and self.executor == "sessions":
            raise UnsupportedError(f"executor='sessions' is not possible: {why}. Possible: copy.")
        return not why and self.executor in ("auto", "sessions")

    @property
    def has_tasks(self) -> bool:
        """Whether tasks run beside its sessions."""
        return self.executor != "copy" and self._allowed[0]

    @property
    def is_here(self) -> bool:
        """Whether its processes see the files of this one: the same machine, the same user."""
        return bool(self.facts["host"] == socket.gethostname() and self.facts["user"] == os.getuid())

    @property
    def facts(self) -> dict[str, Any]:
        """What a session sees of its machine."""
        return self.seen_by(1)

    def seen_by(self, sessions: int) -> dict[str, Any]:
        """The same; so many are asked at once, as each imports this package first (half a second)."""
        if self._facts is None:
            answers = dict(self.sessions.call([(facts, ())] * sessions))
            self._facts = dict(json.loads(answers[0]))
        return self._facts

    @property
    def has_python(self) -> bool:
        """Whether functions may be called."""
        return self._allowed[0]

    @cached_property
    def _allowed(self) -> tuple[bool, str, bool]:
        """Whether functions may be called, why not, and whether packed blocks may be kept."""
        allowed = permissions(self.sessions.lead)
        if not allowed.installed:
            return False, "braidwater is not installed in this database (braidwater postgres install)", allowed.keep
        if not allowed.call:
            return False, "this role may not run braidwater's functions (GRANT EXECUTE)", allowed.keep
        return True, "", allowed.keep

    def way(
        self,
        source: BlockSource,
        table: PostgresTable,
        aggregate: Aggregate[Any, Any],
        packed: Packed | None,
        *,
        kept: bool,
        but: str = "",
    ) -> str:
        """The cheapest way of a pass but `but`, or the one that was asked for. `kept`: the sessions have the blocks."""
        pushed = pushed_down(aggregate, source.encoder)
        found = self.estimated(
            table,
            source.columns,
            packed,
            passes=max(source.passes - source.passes_done, 1),
            exact=aggregate.exact,
            figures=0 if pushed is None else pushed.size,
            keeps=source.cache != "none" and source.expected_bytes <= current_options().memory // 4,
            kept=kept,
        )
        if self.executor in ("auto", but):
            return next(one.name for one in found if one.name != but)
        chosen = next(one for one in found if one.name == self.executor)
        if chosen.refused:
            others = ", ".join(one.name for one in found if not one.refused)
            raise UnsupportedError(f"executor={self.executor!r} is not possible: {chosen.refused}. Possible: {others}.")
        return chosen.name

    def estimated(
        self,
        table: PostgresTable,
        columns: Sequence[str],
        packed: Packed | None,
        *,
        passes: int,
        exact: bool,
        figures: int = 0,
        keeps: bool = True,
        kept: bool = False,
    ) -> list[Way]:
        """Every way of `passes`, the cheapest first."""
        rows = table.statistics([]).rows
        python, why, may_pack = self._allowed
        return estimates(
            Question(
                rows=rows,
                bytes=packed.bytes if packed else 8 * rows * len(columns),
                passes=passes,
                sessions=self.sessions.size,
                warm=self.sessions.warm,
                exact=exact,
                packed=packed is not None,
                may_pack=may_pack,
                python=python,
                why_no_python=why,
                figures=figures,
                keeps=keeps,
                kept=kept,
                parallel=min(self.sessions.size - 1, self._parallel),
            )
        )

    @cached_property
    def _parallel(self) -> int:
        row = self.sessions.lead.execute("SELECT current_setting('max_parallel_workers')::int").fetchone()
        return 0 if row is None else int(row[0])


def sampled(table: Table) -> tuple[Table, Sample | None]:
    """The table whose rows are a sample, and which."""
    return (table.table, table.sample) if isinstance(table, SampledTable) else (table, None)
