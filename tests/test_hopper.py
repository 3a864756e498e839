"""Models that hop from worker to worker: who goes where, what they learn, what goes wrong."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braidwater.blocks.mini_batches import MiniBatches
from braidwater.deep import Trainer
from braidwater.deep.inputs import InputForm
from braidwater.errors import OptionError, UnsupportedError, UserError, WorkerError
from braidwater.estimators import LinearRegression
from braidwater.events import CheckpointWritten, TaskEvent, WorkerLost, listen
from braidwater.model_selection import Choice, SuccessiveHalving, hop, search
from braidwater.model_selection.hopper import ground
from braidwater.model_selection.hopper.ground import make_ground
from braidwater.model_selection.hopper.loop import batches_of
from braidwater.model_selection.hopper.partitions import PartitionedSource, partitions_of
from braidwater.options import options
from braidwater.parallel.base import Replica
from braidwater.parallel.device import torch_threads
from braidwater.parallel.learner import Learner
from braidwater.parallel.loop import own_random_numbers
from braidwater.planner.makespan import least_makespan, simulate_hops
from braidwater.tables import table


def waves(rows: int = 1500) -> pa.Table:
    """Two classes that only a net with a hidden layer can tell apart."""
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, 3))
    label = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] > 0
    return pa.table({**{f"x{i}": x[:, i] for i in range(3)}, "late": label.astype(np.int64)})


def net(rate: float = 1e-2, epochs: int = 3, **settings: object) -> Trainer:
    arguments = {"optimizer": "adamw", "schedule": "cosine", "batch_size": 32, "seed": 3} | settings
    arguments.setdefault("module_arguments", {"hidden": [8], "dropout": 0.2})
    return Trainer("braidwater.deep.modules:MLP", learning_rate=rate, epochs=epochs, **arguments)


def troubled(how: str, folder: Path, at: int = 20) -> Trainer:
    arguments = {"how": how, "folder": str(folder), "at": at}
    return Trainer("hopper_models:Troubled", module_arguments=arguments, epochs=2, batch_size=32)


def sequential(trainer: Trainer, data: pa.Table, order, partitions: int = 2) -> dict[str, torch.Tensor]:
    """Weights after plain SGD in this process over the partitions in the given order: no hops, no checkpoints."""
    rows = table(data)
    encoding = trainer.encode(rows, "late")
    form, loss = InputForm(encoding), trainer.loss_of(encoding)
    training = trainer.make_training(trainer.make_module(form, loss), form, loss)
    from braidwater.engines import LocalEngine

    with PartitionedSource(rows, encoding, partitions=partitions) as source:
        parts = partitions_of(LocalEngine().materialise(source), partitions)
        base = [MiniBatches(part, form.rows, batch_size=1) for part in parts]
        steps = sum(-(-part.rows // training.batch_size) for part in parts)
        with own_random_numbers(training.seed, 0), torch_threads(1):
            learner = Learner(training, Replica(), trainer.epochs * steps)
            number = 0
            for epoch, visits in enumerate(order):
                for partition in visits:
                    for batch in batches_of(base[partition], training, partition).epoch(epoch):
                        learner.step(batch, number, epoch)
                        number += 1
            return learner.weights()


def same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one | other)


@pytest.fixture(scope="module")
def hopped(tmp_path_factory):
    models = [net(rate) for rate in (1e-3, 3e-3, 1e-2)]
    with options(cache_directory=tmp_path_factory.mktemp("cache"), workers=2):
        return models, hop(models, waves(), label="late", validation=0.2)


# -- what models learn ---------------------------------------------------------------------------------------------


def test_every_model_sees_every_partition_once_an_epoch(hopped):
    _, found = hopped
    assert [len(orders) for orders in found.orders] == [3, 3, 3]
    assert all(sorted(order) == [0, 1] for orders in found.orders for order in orders)
    assert {worker: usage.hops for worker, usage in found.usage.items()} == {0: 9, 1: 9}


def test_each_worker_reads_its_own_part_of_the_rows_only(hopped):
    _, found = hopped
    read = [usage.bytes_read for usage in found.usage.values()]
    row = 3 * 8 + 1  # three doubles and a class; what was read once is held
    assert sum(read) == 1200 * row or sum(read) == pytest.approx(1200 * row, rel=0.05)
    assert max(read) < 0.6 * sum(read)


def test_hops_learn_the_weights_of_one_process_in_the_same_order_bit_for_bit(hopped):
    models, found = hopped
    from braidwater.tables import train_test_split

    rows, _ = train_test_split(table(waves()), 0.2, seed=0)
    for model, fitted, orders in zip(models, found.models, found.orders, strict=True):
        assert same_bits(fitted.module_.state_dict(), sequential(model, rows, orders))


def test_each_epoch_of_each_model_has_its_figures_and_the_best_model_is_the_one_with_the_least_loss(hopped):
    _, found = hopped
    figures = found.to_table()
    assert figures.num_rows == 9
    assert {"model", "epoch", "loss", "validation_loss"} <= set(figures.column_names)
    last = [fitted.history_[-1]["validation_loss"] for fitted in found.models]
    assert found.best == int(np.argmin(last))
    assert found.best_model is found.models[found.best]


def test_a_schedule_can_be_repeated_from_where_models_stand(hopped):
    models, found = hopped
    with options(workers=3):
        again = hop(models[:1], waves(), label="late", validation=0.2, orders=found.orders[:1], workers=2)
        further = hop([found.models[2]], waves(), label="late", epochs=1, warm_start=True, workers=1)
    assert same_bits(again.models[0].module_.state_dict(), found.models[0].module_.state_dict())
    assert further.models[0].history_[0]["loss"] < 0.95 * found.models[2].history_[0]["loss"]


# -- what goes wrong -----------------------------------------------------------------------------------------------


def test_a_hop_whose_worker_is_killed_is_done_again_and_changes_nothing(tmp_path):
    model = troubled("killed once", tmp_path)
    lost = []
    with listen(lambda event: lost.append(event) if isinstance(event, WorkerLost) else None):
        found = hop([model, net(epochs=2)], waves(), label="late")
    assert len(lost) == 1
    assert not found.errors
    assert (tmp_path / "once").exists()
    assert same_bits(found.models[0].module_.state_dict(), sequential(model, waves(), found.orders[0]))


def test_a_model_that_fails_is_recorded_and_the_others_go_on(tmp_path):
    wild = net(1e12, optimizer="sgd", schedule=None)
    found = hop([troubled("raises", tmp_path), net(), wild], waves(), label="late")
    assert sorted(found.errors) == [0, 2]
    assert "in the middle" in found.errors[0]
    assert "finite" in found.errors[2]
    assert len(found.models[1].history_) == 3
    assert found.best == 1


def test_a_full_disk_is_told_and_with_room_the_model_goes_on_from_its_last_hop(tmp_path):
    model = troubled("full disk once", tmp_path, at=30)
    with pytest.raises(WorkerError, match=r"CheckpointError: .* could not be written"):
        hop([model], waves(), label="late", checkpoint=tmp_path / "hops")
    found = hop([model], waves(), label="late", checkpoint=tmp_path / "hops")
    assert sum(usage.hops for usage in found.usage.values()) in (1, 2)  # of four
    assert same_bits(found.models[0].module_.state_dict(), sequential(model, waves(), found.orders[0]))


def test_after_an_interrupt_hops_that_were_done_are_not_done_again(tmp_path):
    models = [net(rate, epochs=2) for rate in (1e-3, 1e-2)]
    written = []

    def interrupt(event):
        if isinstance(event, TaskEvent) and isinstance(event.told, CheckpointWritten):
            written.append(event)
            if len(written) == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listen(interrupt):
        hop(models, waves(), label="late", checkpoint=tmp_path)
    found = hop(models, waves(), label="late", checkpoint=tmp_path)
    assert sum(usage.hops for usage in found.usage.values()) <= 8 - 4
    for model, fitted, orders in zip(models, found.models, found.orders, strict=True):
        assert same_bits(fitted.module_.state_dict(), sequential(model, waves(), orders))


def test_a_folder_of_other_models_is_refused(tmp_path):
    hop([net(epochs=1)], waves(200), label="late", checkpoint=tmp_path, workers=1)
    with pytest.raises(OptionError, match="model 0 is another"):
        hop([net(0.5, epochs=1)], waves(200), label="late", checkpoint=tmp_path, workers=1)
    assert len(hop([net(epochs=1)], waves(200), label="late", checkpoint=tmp_path, workers=1).models[0].history_) == 1


@pytest.mark.parametrize(
    ("models", "wishes", "error", "told"),
    [
        ([], {}, OptionError, "at least one Trainer"),
        ([LinearRegression()], {}, UnsupportedError, "fit_many"),
        ([net(), net(nulls="drop")], {}, UserError, "Model 1 .* nulls is 'drop'"),
        ([net(), net(loss="mse")], {}, UserError, "Model 1 .* kind of label"),
        ([net(shuffle=True)], {}, UnsupportedError, "shuffle=True"),
        ([net(strategy="all_reduce")], {}, UnsupportedError, "all_reduce"),
        ([net()], {"workers": 9}, OptionError, "at most 6"),
        ([net()], {"scheduler": "population_based"}, UnsupportedError, "hopper=True"),
        ([net()], {"orders": []}, OptionError, "one for each of the 1 models"),
        ([net()], {"metric": "glamour"}, UserError, "maximize"),
    ],
)
def test_what_cannot_hop_is_refused_before_a_worker_starts(models, wishes, error, told):
    with pytest.raises(error, match=told):
        hop(models, waves(6), label="late", **wishes)


# -- schedulers and searches ---------------------------------------------------------------------------------------


def test_models_that_are_not_worth_it_are_stopped_and_their_place_is_taken():
    models = [net(rate, epochs=4) for rate in (1e-5, 1e-2, 2e-5, 3e-5, 3e-2, 1e-4)]
    found = hop(models, waves(), label="late", validation=0.2, scheduler=SuccessiveHalving(reduction=2))
    epochs = [trial.epochs for trial in found.trials]
    assert max(epochs) == 4
    assert sum(epochs) < 6 * 4
    assert found.trials[found.best].epochs == 4
    assert found.best in (1, 4)
    assert found.models[0].module_ is not None


def test_trials_of_a_search_can_hop(monkeypatch):
    space = {"learning_rate": Choice([1e-4, 1e-2, 3e-2])}
    given = {"label": "late", "sampler": "grid", "workers": 2, "budget": 3, "partitions": 5}
    grounds = []
    monkeypatch.setattr(ground, "make_ground", lambda *args: grounds.append(make_ground(*args)) or grounds[0])
    study = search(net(epochs=2), space, waves(), hopper=True, **given)
    assert [list(grounds[0].owned(worker)) for worker in range(2)] == [[0, 2, 4], [1, 3]]
    assert sum(grounds[0].sizes) == study.best_model().trained_on_["rows"]
    with pytest.raises(OptionError, match=r"partitions=5.*hopper=True"):
        search(net(epochs=2), space, waves(), **given)
    assert [trial.state for trial in study.trials] == ["complete"] * 3
    assert [trial.epochs for trial in study.trials] == [2] * 3
    assert study.best_model().history_[-1]["validation_loss"] == pytest.approx(study.best_value)


# -- the schedule --------------------------------------------------------------------------------------------------

TIMES = st.integers(1, 6).flatmap(
    lambda workers: st.lists(
        st.lists(st.floats(0.1, 10), min_size=workers, max_size=workers), min_size=1, max_size=12
    ).map(np.array)
)


@given(TIMES, st.integers(1, 3), st.integers(0, 9))
@settings(max_examples=60)
def test_a_schedule_leaves_nobody_out_and_nobody_twice_at_a_time(times, epochs, seed):
    found = simulate_hops(times, epochs, seed)
    models, workers = times.shape
    visits = sorted((hop.model, hop.epoch, hop.worker) for hop in found.hops)
    assert visits == [(m, e, w) for m in range(models) for e in range(epochs) for w in range(workers)]
    for name in ("model", "worker"):
        for number in range(max(times.shape)):
            own = sorted((hop.begin, hop.end) for hop in found.hops if getattr(hop, name) == number)
            assert all(before[1] <= after[0] + 1e-9 for before, after in pairwise(own))
    assert least_makespan(times, epochs) <= found.seconds + 1e-9 <= 2 * least_makespan(times, epochs) + 1e-9


@given(st.integers(0, 30))
def test_workers_are_busy_while_there_are_more_models_than_workers(seed):
    random = np.random.default_rng(seed)
    times = np.outer(random.uniform(1, 3, 8), random.uniform(0.9, 1.1, 4))
    found = simulate_hops(times, epochs=5, seed=seed)
    assert found.seconds <= 1.05 * least_makespan(times, 5)
