"""Models that hop over more partitions than there are workers: each worker keeps several, and reads nobody else's."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braidwater.engines import LocalEngine
from braidwater.errors import OptionError
from braidwater.model_selection import hop
from braidwater.options import options
from braidwater.planner.makespan import least_makespan, simulate_hops
from braidwater.tables import table
from test_hopper import net, same_bits, sequential, waves

WORKERS, PARTITIONS = 2, 5


@pytest.mark.parametrize("count", [3, 6], ids=["fewer models than partitions", "more"])
def test_workers_keep_their_partitions_and_models_learn_as_one_process_would(tmp_path, count):
    models = [net(rate, epochs=2) for rate in np.geomspace(1e-3, 1e-2, count)]
    with options(cache_directory=tmp_path / "cache"):
        found = hop(models, waves(), label="late", workers=WORKERS, partitions=PARTITIONS, checkpoint=tmp_path / "hops")
        again = hop(models, waves(), label="late", workers=1, partitions=PARTITIONS, checkpoint=tmp_path / "hops")
    assert all(sorted(order) == list(range(PARTITIONS)) for orders in found.orders for order in orders)
    hops = defaultdict(list)
    for one in sorted(found.hops, key=lambda one: one.begin):
        hops[one.model].append(one.worker)
    for number, orders in enumerate(found.orders):
        assert hops[number] == [partition % WORKERS for order in orders for partition in order]
    row = 3 * 8 + 1
    shares = [len(range(worker, PARTITIONS, WORKERS)) / PARTITIONS for worker in range(WORKERS)]
    for worker, usage in found.usage.items():
        assert usage.bytes_read == pytest.approx(1500 * row * shares[worker], rel=0.1)
    for model, fitted, orders in zip(models, found.models, found.orders, strict=True):
        assert same_bits(fitted.module_.state_dict(), sequential(model, table(waves()), orders, PARTITIONS))
    # what was done on two workers is known to one, which has nothing left to do
    assert not again.hops
    assert same_bits(again.models[0].module_.state_dict(), found.models[0].module_.state_dict())


@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=60)
def test_a_schedule_visits_every_partition_once_an_epoch_at_its_owner(models, workers, each, seed):
    partitions = workers * each
    times = np.random.default_rng(seed).uniform(0.5, 2.0, (models, partitions))
    found = simulate_hops(times, 2, seed, workers)
    assert len(found.hops) == models * partitions * 2
    by_worker = times.reshape(models, each, workers).sum(axis=1)
    for worker in range(workers):
        own = sorted((hop.begin, hop.end, hop.model) for hop in found.hops if hop.worker == worker)
        assert all(one[1] <= other[0] + 1e-9 for one, other in pairwise(own))
        assert sum(end - begin for begin, end, _ in own) == pytest.approx(2 * by_worker[:, worker].sum())
    assert least_makespan(by_worker, 2) <= found.seconds + 1e-9 <= 2 * least_makespan(by_worker, 2) + 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_workers_are_busy_over_eight_partitions_on_two_of_them(seed):
    random = np.random.default_rng(seed)
    times = random.uniform(0.5, 2.0, (6, 1)) * random.uniform(0.9, 1.1, (6, 8))
    assert simulate_hops(times, 5, seed, 2).busy > 0.95


def test_every_worker_needs_a_partition():
    with pytest.raises(OptionError, match="partitions=1 is not possible; it must be at least 2"):
        hop([net()], waves(), label="late", workers=2, partitions=1)

    class Elsewhere(LocalEngine):
        def stays(self, table: Any) -> bool:
            return True

    with pytest.raises(OptionError, match="partitions=4 is not possible; it must be 2: where rows stay"):
        hop([net()], waves(), label="late", workers=2, partitions=4, engine=Elsewhere(4))
