"""A plan for rows that stay where they are: what the engine says of its ways takes the place of reading them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from braidwater.options import format_bytes
from braidwater.planner.base import Work
from braidwater.planner.cost import Cost
from braidwater.planner.tree import Choice, Node, Plan, Rejected

if TYPE_CHECKING:
    from braidwater.engines.base import Engine, Way
    from braidwater.tables.base import Table


def in_place(plan: Plan, engine: Engine, table: Table, work: Work) -> Plan:
    """`plan` with the way that `engine` will take over `table`, and the bytes that leave the place by each; itself where
    the engine has nothing to choose.
    """
    ways = engine.ways(table, work.read_columns, passes=work.passes, exact=work.exact)
    if not ways:
        return plan
    best = ways[0]
    parts = {name: size for name, size in plan.memory_parts.items() if name == "states"}  # blocks are the workers' own
    cost = Cost(best.seconds, best.seconds, sum(parts.values()), 0, best.leaving)
    passes = "1 pass" if work.passes == 1 else f"{work.passes} passes"
    root = Node("train", cost, children=[Node(f"{passes} by {best.name}", cost, role="later")])
    choice = Choice("engine", f"{engine.name} ({best.name})", _leaving(best), tuple(_rejected(ways[1:], best)))
    return replace(
        plan,
        root=root,
        choices=[choice, *(one for one in plan.choices if one.name not in _OF_THE_EMBEDDED_ENGINE)],
        chosen=replace(plan.chosen, engine=engine.name),
        memory_parts=parts,
        notes=[*plan.notes, *([best.note] if best.note else [])],
    )


_OF_THE_EMBEDDED_ENGINE = ("engine", "workers", "cache")
_TALKS = "its workers talk inside a pass; Averaging(every='epoch') does not, and trains where the rows lie"


def gang_or_in_place(plan: Plan, engine: Engine, table: Table, work: Work, *, folds: bool) -> Plan:
    """The plan of a training, told where its rows go: they stay, where its strategy `folds` them by passes of the engine and
    that can be; else they leave for the workers of a gang. The estimates of its steps hold for both.
    """
    ways = engine.ways(table, work.read_columns, passes=work.passes, exact=False)
    if not ways:
        return plan
    stays = folds and engine.stays(table)
    taken = "sessions" if stays else "copy"
    best = next((way for way in ways if way.name == taken), None)
    if best is None:  # an engine that has gangs of its own
        best, chosen = ways[0], replace(plan.chosen, engine=engine.name)
        choice = Choice("engine", f"{engine.name} ({best.name})", _leaving(best), tuple(_rejected(ways[1:], best)))
        choices = [choice, *(one for one in plan.choices if one.name != "engine")]
        return replace(plan, choices=choices, chosen=chosen, notes=[*plan.notes, *([best.note] if best.note else [])])
    others = [
        Rejected(way.name, way.refused or (_leaving(way) if folds else _TALKS)) for way in ways if way is not best
    ]
    where = f"{engine.name} ({best.name})" if stays else "local"
    choice = Choice("engine", where, _leaving(best), tuple(others))
    choices = [choice, *(one for one in plan.choices if one.name != "engine")]
    return replace(plan, choices=choices, chosen=replace(plan.chosen, engine=engine.name if stays else "local"))


def _leaving(way: Way) -> str:
    if not way.leaving:
        return "the rows stay where they are; only what the passes found leaves"
    return f"{format_bytes(way.leaving)} leave the place where the rows lie"


def _rejected(ways: Sequence[Way], best: Way) -> list[Rejected]:
    return [
        Rejected(
            way.name,
            way.refused or f"{_leaving(way)}, {way.seconds:.2f} s instead of {best.seconds:.2f} s",
            None if way.refused else way.seconds,
        )
        for way in ways
    ]
