"""A pass inside the server: which session folds what, and how their states come together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from braidwater.aggregates.base import Aggregate
from braidwater.blocks.base import Block, BlockEncoder
from braidwater.blocks.source import BlockSource
from braidwater.blocks.store import runs
from braidwater.engines.base import Nothing
from braidwater.engines.postgres.packing import Packed
from braidwater.engines.postgres.report import Report
from braidwater.engines.postgres.server import server_of
from braidwater.engines.postgres.session import Folded, fold
from braidwater.engines.postgres.sessions import execute, opened, request_of
from braidwater.engines.postgres.share import Rows, Share, ask
from braidwater.engines.postgres.shares import holder_of, ones_of, shares_of
from braidwater.engines.postgres.site import Site, sampled
from braidwater.engines.postgres.store import ServerStore
from braidwater.engines.postgres.tree import TreeFold, merged
from braidwater.engines.postgres.visit import Part
from braidwater.errors import NullValueError
from braidwater.options import current_options
from braidwater.tables.missing import missing_count

Result = TypeVar("Result")


class Resident(Nothing):
    """A pass that makes the blocks of each session, which it keeps."""

    exact = False
    what = "make blocks"


class Passes:
    """Runs aggregates over packed blocks of a database."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._kept = ("", "")  # whose blocks the sessions hold: version and encoder

    def holds(self, packed: Packed | None, encoder: BlockEncoder | None) -> bool:
        """Whether the sessions have these blocks in memory."""
        return packed is not None and self._kept == (packed.version, _key(encoder))

    def run(self, source: BlockSource, aggregate: Aggregate[Any, Result], packed: Packed, way: str) -> Result:
        """One pass, by ``"sessions"`` or as an SQL ``"aggregate"``."""
        found = self.folded(source, aggregate, packed, way)
        if not aggregate.exact:
            return aggregate.final(merged(aggregate, [one.state for one in found]))
        tree = TreeFold(aggregate)
        for one in found:
            tree.take(one.nodes)
        return aggregate.final(tree.state())

    def folded(self, source: BlockSource, aggregate: Aggregate[Any, Any], packed: Packed, way: str) -> list[Folded]:
        """What each worker found in its share."""
        rows = _rows(source, packed)
        report = Report(source, aggregate, packed.rows)
        try:
            run = self._by_query if way == "aggregate" else self._by_sessions
            found = run(packed, rows, aggregate)
        except NullValueError as error:
            missing, all_rows = missing_count(source.table, error.column)
            raise NullValueError(error.column, missing, all_rows, error.choices) if missing else error from error
        source.rows_dropped = sum(one.dropped for one in found)
        report.finish(found, sum(rows for one in found for rows, *_ in one.blocks))
        return found

    def ask(self, source: BlockSource, packed: Packed, number: int, function: Callable[[Block], Any]) -> Any:
        """What `function` says of one block, in the session that holds it."""
        shares = self._shares(packed, None)
        holder = holder_of(number, len(packed.blocks), len(shares))
        (one,) = ones_of(packed, shares[holder], range(number, number + 1))
        arguments = (shares[holder], _rows(source, packed), one, function)
        return self._site.sessions.ask(holder, (ask, arguments))

    def parts(self, stores: Sequence[ServerStore], worker: int, workers: int) -> list[Part]:
        """What a session is told of the blocks that it holds of the first store, its run of so many `workers`', and of all
        blocks of the others."""
        memory, cores = current_options().memory // 4, self._site.facts["cores"]
        own = shares_of(stores[0].packed, workers, memory, cores)[worker]
        shares = [own, *(shares_of(store.packed, 1, memory // workers, cores)[0] for store in stores[1:])]
        spans = [runs(len(stores[0].units), workers)[worker], *(range(len(store.units)) for store in stores[1:])]
        return [_part(*one) for one in zip(stores, shares, spans, strict=True)]

    def _by_sessions(self, packed: Packed, rows: Rows, aggregate: Aggregate[Any, Any]) -> list[Folded]:
        shares = self._shares(packed, None if aggregate.exact else aggregate.workers)
        ends = [*(share.place for share in shares[1:]), len(packed.blocks)]
        requests = [
            (fold, (share, rows, aggregate.part(range(share.place, end))))
            for share, end in zip(shares, ends, strict=True)
        ]
        found = dict(self._site.sessions.call(requests))
        held = sum(size for one in found.values() for _, size, *_ in one.blocks)
        self._kept = (packed.version, rows.key) if held <= shares[0].keep * len(shares) else ("", "")
        return [found[number] for number in sorted(found)]

    def _shares(self, packed: Packed, workers: int | None) -> list[Share]:
        count = max(min(workers or self._site.sessions.size, self._site.sessions.size, len(packed.blocks)), 1)
        return shares_of(packed, count, current_options().memory // 4, self._site.seen_by(count)["cores"])

    def _by_query(self, packed: Packed, rows: Rows, aggregate: Aggregate[Any, Any]) -> list[Folded]:
        lead, workers = self._site.sessions.lead, self._site.sessions.size
        with lead.transaction():
            for name in ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"):
                lead.execute("SELECT set_config(%s, '0', true)", [name])
            lead.execute("SELECT set_config('max_parallel_workers_per_gather', %s, true)", [str(workers - 1)])
            request = request_of((rows, aggregate))
            statement = server_of(lead).aggregate(packed.identifier)
            found = execute(lead, statement, [request], binary=True).fetchall()
        return [opened(state, "a worker") for (state,) in found]


def _part(store: ServerStore, share: Share, span: range) -> Part:
    places = [place for place in span if store.units[place].rows]
    units = tuple(store.units[place] for place in places)
    ones = tuple(ones_of(store.packed, share, places))
    return Part(share, _rows(store.source, store.packed), store.schema, units, ones)


def _rows(source: BlockSource, packed: Packed) -> Rows:
    _, sample = sampled(source.table)
    key = _key(source.encoder) + ("" if sample is None else sample.key)
    return Rows(packed.columns, source.encoder, key, sample)


def _key(encoder: BlockEncoder | None) -> str:
    return "" if encoder is None else f"{encoder.key} {encoder.block_schema.to_json()}"
