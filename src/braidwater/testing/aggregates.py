"""The laws of an aggregate, as checks that anybody can run on theirs.

::

    @pytest.mark.parametrize("check", AGGREGATE_CHECKS, ids=lambda check: check.__name__)
    def test_law(check):
        check(AggregateExample(MyAggregate(), block))
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, is_dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from braidwater.aggregates.base import Aggregate
from braidwater.blocks.base import Block


@dataclass(frozen=True)
class AggregateExample:
    """An aggregate with rows that it can fold. `tolerance` is relative, for figures that rounding may move."""

    aggregate: Aggregate[Any, Any]
    block: Block
    tolerance: float = 1e-9


def cut(block: Block, borders: Sequence[int]) -> list[Block]:
    """The block cut at row numbers, with empty blocks where two borders are equal."""
    edges = [0, *sorted(borders), block.rows]
    parts = []
    for number, (begin, end) in enumerate(pairwise(edges)):
        arrays = {column.name: block[column.name][begin:end] for column in block.schema.columns}
        part = Block.from_arrays(arrays, block.schema)
        part.number, part.start = number, begin
        parts.append(part)
    return parts


def fold(aggregate: Aggregate[Any, Any], shares: Sequence[Sequence[Block]]) -> Any:
    """The result of workers that fold a share of the blocks each, merged in their order."""
    merged = aggregate.initialize()
    for share in shares:
        state = aggregate.initialize()
        for block in share:
            state = aggregate.transition(state, block)
        merged = aggregate.merge(merged, state)
    return aggregate.final(merged)


def check_any_partitioning_gives_the_same_result(example: AggregateExample) -> None:
    """Sums do not care where the rows are cut, how the blocks are shared out, nor that some workers get none."""
    if not example.aggregate.exact:
        return
    whole = fold(example.aggregate, [[example.block]])

    @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(
        borders=st.lists(st.integers(0, example.block.rows), max_size=6), shares=st.integers(1, 5), data=st.randoms()
    )
    def law(borders: list[int], shares: int, data: Any) -> None:
        blocks = cut(example.block, borders)
        data.shuffle(blocks)
        assert_same(fold(example.aggregate, [blocks[i::shares] for i in range(shares)]), whole, example.tolerance)

    law()


def check_one_row_at_a_time_is_enough(example: AggregateExample) -> None:
    """A block may hold a single row."""
    if not example.aggregate.exact:
        return
    few = cut(example.block, [min(20, example.block.rows)])[0]
    singles = cut(few, range(1, few.rows))
    assert_same(fold(example.aggregate, [singles]), fold(example.aggregate, [[few]]), max(example.tolerance, 1e-7))


def check_merging_an_empty_state_changes_nothing(example: AggregateExample) -> None:
    """A worker without rows leaves the others' result as it is, on either side."""
    aggregate = example.aggregate
    alone = aggregate.final(aggregate.transition(aggregate.initialize(), example.block))
    state = aggregate.transition(aggregate.initialize(), example.block)
    assert_same(aggregate.final(aggregate.merge(state, aggregate.initialize())), alone, 0.0)
    state = aggregate.transition(aggregate.initialize(), example.block)
    assert_same(aggregate.final(aggregate.merge(aggregate.initialize(), state)), alone, 1e-15)


def check_two_empty_states_merge(example: AggregateExample) -> None:
    """Nothing and nothing is nothing, and merges with something afterwards."""
    aggregate = example.aggregate
    empty = aggregate.merge(aggregate.initialize(), aggregate.initialize())
    state = aggregate.transition(aggregate.initialize(), example.block)
    alone = aggregate.final(aggregate.transition(aggregate.initialize(), example.block))
    assert_same(aggregate.final(aggregate.merge(empty, state)), alone, 1e-15)


def check_merge_leaves_the_other_state_alone(example: AggregateExample) -> None:
    """An engine may send a state to two places."""
    aggregate = example.aggregate
    one, two = (aggregate.transition(aggregate.initialize(), part) for part in _halves(example.block))
    before = pickle.dumps(deepcopy(two))
    aggregate.merge(one, two)
    assert_same(two, pickle.loads(before), 0.0)


def check_final_leaves_the_state_alone(example: AggregateExample) -> None:
    """The result can be looked at in the middle."""
    aggregate = example.aggregate
    state = aggregate.transition(aggregate.initialize(), example.block)
    assert_same(aggregate.final(state), aggregate.final(state), 0.0)


def check_a_state_keeps_nothing_of_the_block(example: AggregateExample) -> None:
    """The memory of a block is used again for the next one."""
    aggregate = example.aggregate
    expected = aggregate.final(aggregate.transition(aggregate.initialize(), example.block))
    copy = cut(example.block, [])[0]
    state = aggregate.transition(aggregate.initialize(), copy)
    copy.buffer[:] = 0xFF
    assert_same(aggregate.final(state), expected, 0.0)


def check_aggregate_and_state_pickle(example: AggregateExample) -> None:
    """Both travel to workers and back."""
    aggregate: Aggregate[Any, Any] = pickle.loads(pickle.dumps(example.aggregate))
    state = pickle.loads(pickle.dumps(aggregate.transition(aggregate.initialize(), example.block)))
    expected = example.aggregate.transition(example.aggregate.initialize(), example.block)
    assert_same(aggregate.final(state), example.aggregate.final(expected), 0.0)


AGGREGATE_CHECKS = (
    check_any_partitioning_gives_the_same_result,
    check_one_row_at_a_time_is_enough,
    check_merging_an_empty_state_changes_nothing,
    check_two_empty_states_merge,
    check_merge_leaves_the_other_state_alone,
    check_final_leaves_the_state_alone,
    check_a_state_keeps_nothing_of_the_block,
    check_aggregate_and_state_pickle,
)


def assert_same(found: Any, expected: Any, tolerance: float) -> None:
    """Equal values of any plain or array type, floating ones within a relative `tolerance`."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(found[key], value, tolerance)
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other, tolerance)
    elif isinstance(expected, (np.ndarray, float, np.floating)):
        size = float(np.max(np.abs(expected), initial=0.0)) if np.asarray(expected).dtype.kind == "f" else 0.0
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * size)
    elif is_dataclass(expected) or hasattr(expected, "__dict__"):
        assert type(found) is type(expected)
        assert_same(vars(found) if hasattr(found, "__dict__") else _slots(found), _attributes(expected), tolerance)
    else:
        assert found == expected


def _attributes(value: Any) -> dict[str, Any]:
    return vars(value) if hasattr(value, "__dict__") else _slots(value)


def _slots(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in type(value).__slots__}


def _halves(block: Block) -> list[Block]:
    return cut(block, [block.rows // 2])
