"""Saving a model: what comes back, what survives a crash, and what is refused."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braidwater.errors import CorruptModelError, ModelFileError, ModelSchemaError, UnsafeModelError
from braidwater.saving import load_model, save_model
from braidwater.saving import save as save_module
from braidwater.saving.format import checksum_of, from_plain, to_plain

DOCUMENT = {"names": ["a", "b"], "loss": 0.25, "worst": float("inf"), "classes": [0, 1], "nothing": None}
ARRAYS = {"coef": np.arange(6.0).reshape(2, 3), "intercept": np.float64(0.5), "mask": np.array([True, False])}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model", "example", DOCUMENT, ARRAYS)


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_what_is_saved_comes_back(folder: Path) -> None:
    saved = load_model(folder)
    assert (saved.kind, saved.document) == ("example", DOCUMENT)
    assert set(saved.arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert saved.arrays[name].dtype == np.asarray(array).dtype
        assert saved.arrays[name].shape == np.asarray(array).shape
        np.testing.assert_array_equal(saved.arrays[name], array)


def test_arrays_in_any_memory_order_come_back_the_same(tmp_path: Path) -> None:
    base = np.arange(24, dtype=np.int32).reshape(4, 6)
    arrays = {
        "fortran": np.asfortranarray(base),
        "strided": base[::2, ::3],
        "big": base.astype(">i4"),
        "empty": base[:0],
    }
    loaded = load_model(save_model(tmp_path / "m", "k", {}, arrays)).arrays
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array, err_msg=name)


def test_other_tools_can_read_the_files(folder: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    record = json.loads((folder / "model.json").read_text(), parse_constant=refuse)
    import safetensors.numpy

    weights = safetensors.numpy.load_file(folder / record["weights"]["file"])
    np.testing.assert_array_equal(weights["coef"], ARRAYS["coef"])


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(PLAIN)
def test_every_plain_value_survives_json(value: object) -> None:
    assert from_plain(json.loads(json.dumps(to_plain(value), allow_nan=False))) == value


def test_values_that_json_cannot_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="holds plain values only, and not a set"):
        save_model(tmp_path / "m", "k", {"bad": {1}}, {})
    with pytest.raises(TypeError, match="'bad' of dtype object cannot be saved"):
        save_model(tmp_path / "m", "k", {}, {"bad": np.array([object()])})
    assert not (tmp_path / "m").exists()


def test_saving_again_replaces_the_model_and_its_weights(folder: Path) -> None:
    save_model(folder, "example", {"second": True}, {"coef": np.ones(3)})
    saved = load_model(folder)
    assert saved.document == {"second": True}
    np.testing.assert_array_equal(saved.arrays["coef"], np.ones(3))
    assert len(files(folder)) == 2, "the weights of the first model are still there"


@pytest.mark.parametrize("occurrence", range(1, 5))
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_between_any_two_steps_leaves_a_whole_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch, step: str, occurrence: int
) -> None:
    calls = 0
    real = getattr(os, step)

    def fail(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == occurrence:
            raise OSError(5, "Input/output error")
        return real(*arguments)

    monkeypatch.setattr(save_module.os, step, fail)
    with contextlib.suppress(ModelFileError):
        save_model(folder, "example", {"second": True}, {"coef": np.ones(3)})
    monkeypatch.undo()
    saved = load_model(folder)
    first, second = (saved.document == DOCUMENT), (saved.document == {"second": True})
    assert first or second
    np.testing.assert_array_equal(saved.arrays["coef"], ARRAYS["coef"] if first else np.ones(3))
    assert first == (calls == occurrence and occurrence <= (2 if step == "replace" else 3))
    assert not list(folder.glob(".*.tmp")), "a failed save left its temporary file"


KILLED = """
import os, sys
import numpy as np
from braidwater.saving import save as module
real, calls = os.{step}, 0
def die(*arguments):
    global calls
    calls += 1
    if calls == {occurrence}:
        os.kill(os.getpid(), 9)
    return real(*arguments)
module.os.{step} = die
module.save_model(sys.argv[1], "example", {{"second": True}}, {{"coef": np.ones(3)}})
"""


@pytest.mark.parametrize(("step", "occurrence"), [("replace", 1), ("replace", 2), ("fsync", 4)])
def test_a_kill_between_two_steps_leaves_a_whole_model(folder: Path, step: str, occurrence: int) -> None:
    script = KILLED.format(step=step, occurrence=occurrence)
    died = subprocess.run([sys.executable, "-c", script, str(folder)], timeout=60)
    assert died.returncode == -signal.SIGKILL
    saved = load_model(folder)
    new = step == "fsync"  # the fourth flush comes after model.json took its place
    assert saved.document == ({"second": True} if new else DOCUMENT)
    np.testing.assert_array_equal(saved.arrays["coef"], np.ones(3) if new else ARRAYS["coef"])
    save_model(folder, "example", {"third": True}, {"coef": np.zeros(2)})
    assert len(files(folder)) == 2, "what the killed writer left was not cleaned up"


FULL = """
import resource, sys
import numpy as np
from braidwater.errors import ModelFileError
from braidwater.saving import save_model
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_model(sys.argv[1], "example", {}, {"coef": np.zeros(100_000)})
except ModelFileError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_old_model(folder: Path) -> None:
    assert resource.RLIMIT_FSIZE is not None
    done = subprocess.run([sys.executable, "-c", FULL, str(folder)], timeout=60, capture_output=True, text=True)
    assert "the disk is full. A model that was there before is unchanged." in done.stdout, done.stderr
    assert load_model(folder).document == DOCUMENT
    assert len(files(folder)) == 2, "half-written weights were left"


def test_two_processes_that_save_into_one_folder_leave_one_whole_model(tmp_path: Path) -> None:
    script = (
        "import sys, numpy as np\nfrom braidwater.saving import save_model\nby = int(sys.argv[2])\n"
        "for turn in range(20): save_model(sys.argv[1], 'k', {'by': by}, {'w': np.full(9, by)})"
    )
    folder = tmp_path / "m"
    savers = [subprocess.Popen([sys.executable, "-c", script, str(folder), str(n)]) for n in (1, 2)]
    read = 0
    while any(saver.poll() is None for saver in savers):
        if (folder / "model.json").exists():
            saved = load_model(folder)
            assert (saved.arrays["w"] == saved.document["by"]).all()
            read += 1
    assert [saver.wait() for saver in savers] == [0, 0]
    assert read > 0
    assert len(files(folder)) == 2


def weights_of(folder: Path) -> Path:
    return next(folder.glob("weights-*.safetensors"))


def test_truncated_weights_are_refused(folder: Path) -> None:
    weights_of(folder).write_bytes(weights_of(folder).read_bytes()[:-1])
    with pytest.raises(CorruptModelError, match=r"truncated: \d+ bytes of"):
        load_model(folder)


def test_changed_weights_are_refused(folder: Path) -> None:
    data = bytearray(weights_of(folder).read_bytes())
    data[-1] ^= 1
    weights_of(folder).write_bytes(data)
    with pytest.raises(CorruptModelError, match="changed after it was saved"):
        load_model(folder)


def test_missing_weights_are_refused(folder: Path) -> None:
    weights_of(folder).unlink()
    with pytest.raises(CorruptModelError, match="lacks its weights"):
        load_model(folder)


def test_a_truncated_document_is_refused(folder: Path) -> None:
    (folder / "model.json").write_text((folder / "model.json").read_text()[:-20])
    with pytest.raises(CorruptModelError, match="truncated or damaged"):
        load_model(folder)


def test_a_changed_document_is_refused(folder: Path) -> None:
    (folder / "model.json").write_text((folder / "model.json").read_text().replace("0.25", "0.26"))
    with pytest.raises(CorruptModelError, match="changed after it was saved"):
        load_model(folder)


def rewrite(folder: Path, **changes: object) -> None:
    record = json.loads((folder / "model.json").read_text()) | changes
    (folder / "model.json").write_text(json.dumps(record | {"checksum": checksum_of(record)}))


def test_weights_outside_the_folder_are_refused(folder: Path) -> None:
    record = json.loads((folder / "model.json").read_text())["weights"]
    rewrite(folder, weights=record | {"file": "../" + record["file"]})
    with pytest.raises(CorruptModelError, match="outside its folder"):
        load_model(folder)


def test_a_newer_format_is_refused_by_name(folder: Path) -> None:
    rewrite(folder, format=99, braidwater="9.0")
    with pytest.raises(ModelSchemaError, match=r"format 99 of braidwater 9\.0; .* Upgrade"):
        load_model(folder)


def test_another_kind_is_refused(folder: Path) -> None:
    assert load_model(folder, kind=("other", "example")).kind == "example"
    with pytest.raises(ModelSchemaError, match="is of kind 'example', and not 'pca'"):
        load_model(folder, kind="pca")


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch trapped",)


@pytest.mark.parametrize("name", ["weights.pkl", "model.bin", "harmless.safetensors"])
def test_a_pickle_in_the_folder_is_refused_and_never_run(folder: Path, name: str) -> None:
    (folder / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UnsafeModelError, match="is a pickle"):
        load_model(folder)
    assert not Path("trapped").exists()


def test_a_pickle_in_place_of_the_weights_is_refused(folder: Path) -> None:
    weights_of(folder).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UnsafeModelError):
        load_model(folder)


def test_a_file_of_torch_save_is_refused_under_any_name(folder: Path) -> None:
    with zipfile.ZipFile(folder / "weights", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Trap()))
    with pytest.raises(UnsafeModelError):
        load_model(folder)
    with pytest.raises(UnsafeModelError):
        load_model(folder / "weights")


def test_an_honest_zip_beside_the_model_is_no_pickle(folder: Path) -> None:
    with zipfile.ZipFile(folder / "notes.zip", "w") as archive:
        archive.writestr("notes.txt", "hello")
    assert load_model(folder).kind == "example"


def test_nothing_and_a_plain_file_are_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="There is no model at"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(ModelFileError, match=r"holds no model\.json"):
        load_model(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ModelFileError, match="is a file; a model is the folder"):
        load_model(tmp_path / "notes.txt")
    with pytest.raises(ModelFileError, match="a file is in the way"):
        save_model(tmp_path / "notes.txt", "k", {}, {})
