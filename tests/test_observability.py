"""Looking into a training: where its time went, TensorBoard, profiler traces."""

import json

import numpy as np
import pyarrow as pa
import pytest
from sklearn.datasets import load_digits

from braidwater.deep import CNN, MLP, Trainer
from braidwater.encoding import Image
from braidwater.events import BlockDone, RolledBack
from braidwater.report import Record, TensorBoard
from braidwater.report.tracker import Tracker


def digits():
    found = load_digits()
    images = pa.FixedSizeListArray.from_arrays(pa.array(found.images.astype(np.float32).ravel()), 64)
    return pa.table({"image": images, "digit": found.target})


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path_factory.mktemp("board")
    rows = digits()
    record = Record()
    trainer = Trainer(
        CNN,
        module_arguments={"channels": [4]},
        strategy="all_reduce",
        workers=2,
        epochs=2,
        histograms=True,
        profile=folder / "traces",
    )
    with TensorBoard(folder) as writer, record.recording():
        trainer.fit(rows, label="digit", features={"image": Image((1, 8, 8))}, validation=0.2)
        writer.add_model(trainer, rows)
    found = EventAccumulator(str(folder), size_guidance={"images": 0, "histograms": 0})
    found.Reload()
    return found, trainer, record, folder


def test_scalars_are_those_of_the_history(board):
    found, trainer, _, _ = board
    losses = {event.step: event.value for event in found.Scalars("validation_loss")}
    assert losses == pytest.approx({r["epoch"]: r["validation_loss"] for r in trainer.history_}, rel=1e-6)
    assert "rows_a_second/epoch" in found.Tags()["scalars"]


def test_histograms_hold_every_weight(board):
    found, trainer, _, _ = board
    for name, parameter in trainer.module_.named_parameters():
        events = found.Histograms(f"weights/{name}")
        assert [event.step for event in events] == [1, 2]
        assert events[-1].histogram_value.num == parameter.numel()
        assert events[-1].histogram_value.max == pytest.approx(float(parameter.detach().max()), rel=1e-5)


def test_graph_and_images_are_there(board):
    found, _, _, _ = board
    assert found.Tags()["graph"]
    assert found.Tags()["images"]


def test_each_worker_leaves_a_trace_of_some_steps(board):
    _, _, _, folder = board
    for rank in range(2):
        trace = json.loads((folder / "traces" / f"worker-{rank}.json").read_text())
        names = {event.get("name") for event in trace["traceEvents"]}
        assert any("conv" in str(name) for name in names)


def test_the_timeline_tells_computing_from_waiting_and_exchange(board):
    _, _, record, _ = board
    spans, kinds = record.timeline()
    assert kinds[-2:] == ["waiting for rows", "exchange"]
    assert {span.worker for span in spans} == {0, 1}
    epoch = kinds.index("epoch")
    assert {epoch, kinds.index("exchange")} <= {span.group for span in spans}


def test_shares_of_a_span_add_up_to_it():
    record = Record()
    record(BlockDone(worker=0, rows=10, start=100.0, seconds=1.0, data_seconds=0.2, exchange_seconds=0.3))
    spans, kinds = record.timeline()
    assert [(kinds[span.group], round(span.end - span.start, 6)) for span in spans] == [
        ("waiting for rows", 0.2),
        ("pass", 0.5),
        ("exchange", 0.3),
    ]


def test_a_rollback_is_told():
    tracker = Tracker()
    tracker(RolledBack(reason="The loss became inf.", rate_factor=0.5))
    assert "0.5 x the learning rate" in tracker.take_notes()[0]


def test_trained_on_one_worker_the_same_files_come_out(tmp_path):
    rows = pa.table({"x": np.linspace(0, 1, 200), "late": [0, 1] * 100})
    Trainer(MLP, strategy="single", epochs=1, batch_size=10, profile=tmp_path).fit(rows, label="late")
    assert (tmp_path / "worker-0.json").is_file()
