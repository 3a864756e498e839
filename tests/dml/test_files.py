"""HDF5, JSON and folders of lists: what others wrote, and what is broken in it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from braidwater import dml
from braidwater.errors import DMLError, UnsupportedError

MATRIX = np.array([[1.5, -2.0, 3.0], [0.0, np.nan, np.inf]])


def read(path: Path, options: str = "") -> Any:
    return dml.run(f"X = read($p{options})", outputs=["X"], nvargs={"p": str(path)})["X"]


def test_an_hdf5_file_of_another_program_is_read(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("group/packed", data=MATRIX, chunks=(1, 3), compression="gzip", dtype="<f8")
        file.create_dataset("counts", data=np.array([3, 1, 2], dtype=">i2"))
        file.create_dataset("flags", data=np.array([[True], [False]]))
    np.testing.assert_array_equal(read(tmp_path / "m.h5", ', dataset="/group/packed"'), MATRIX)
    np.testing.assert_array_equal(read(tmp_path / "m.h5", ', dataset="counts"'), [[3], [1], [2]])
    np.testing.assert_array_equal(read(tmp_path / "m.h5", ', dataset="flags"'), [[1], [0]])


def test_an_hdf5_file_holds_the_name_that_was_given(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    script = 'write(X, $p, format="hdf5", dataset="features")'
    dml.run(script, {"X": MATRIX}, outputs=[], nvargs={"p": str(tmp_path / "m")})
    with h5py.File(tmp_path / "m") as file:
        np.testing.assert_array_equal(file["features"], MATRIX)
    assert json.loads((tmp_path / "m.mtd").read_text())["dataset"] == "features"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("", r"m.h5 holds 3 data sets(.|\n)*broad, cube, names"),
        (', dataset="cub"', r"no data set 'cub'(.|\n)*broad, cube, names"),
        (', dataset="cube"', "has 3 dimensions"),
        (', dataset="names"', "holds object, and a matrix numbers"),
        (', dataset="broad", rows=3', "m.h5 has 2 rows, and 3 were said"),
    ],
)
def test_an_hdf5_file_that_is_no_matrix_is_refused(tmp_path: Path, options: str, says: str) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("names", data=["graz", "wien"])
        file.create_dataset("cube", data=np.zeros((2, 2, 2)))
        file.create_dataset("broad", data=MATRIX)
    with pytest.raises(DMLError, match=says):
        read(tmp_path / "m.h5", options)


def test_an_hdf5_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    place = tmp_path / "m.h5"
    dml.run("write(X, $p)", {"X": MATRIX}, outputs=[], nvargs={"p": str(place)})
    place.write_bytes(place.read_bytes()[:700])
    with pytest.raises(DMLError, match=r"m\.h5 cannot be read as HDF5: .*truncated"):
        read(place)


def test_hdf5_says_which_extra_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UnsupportedError, match=r"Writing HDF5 needs h5py: pip install 'braidwater\[hdf5\]'"):
        dml.run("write(X, $p)", {"X": MATRIX}, outputs=[], nvargs={"p": str(tmp_path / "m.h5")})
    assert list(tmp_path.iterdir()) == []


ROWS = [{"town": "Graz", "rooms": 2, "price": 1, "sold": True}, {"town": None, "rooms": 3, "price": 1.5, "sold": False}]


@pytest.mark.parametrize("form", ["lines", "array"])
def test_a_json_file_is_a_frame_with_the_types_of_its_cells(tmp_path: Path, form: str) -> None:
    lines = [json.dumps(row) for row in ROWS]
    text = "\n\n".join(lines) if form == "lines" else json.dumps(ROWS, indent=1)
    (tmp_path / "f.json").write_text(text)
    found = read(tmp_path / "f.json", ', data_type="frame"')
    assert found.to_pylist() == [{**ROWS[0], "price": 1.0}, ROWS[1]]
    assert [str(kind) for kind in found.schema.types] == ["string", "int64", "double", "bool"]


def test_texts_of_any_characters_come_back_from_json(tmp_path: Path) -> None:
    texts = ["a\u2028b", 'say "x", \\n', "Käse\n\u20ac", "\U0001f600"]
    script = 'write(F, $p, format="jsonl"); G = read($p)'
    found = dml.run(script, {"F": pa.table({"k": texts})}, ["G"], nvargs={"p": str(tmp_path / "f")})["G"]
    assert found["k"].to_pylist() == texts


def test_keys_that_a_json_object_lacks_are_missing_cells(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text('{"a": 1}\n{"b": "x", "a": 2}\n{"b": true}\n')
    found = read(tmp_path / "f.json", ', data_type="frame"')
    assert found["a"].to_pylist()[:2] == [1.0, 2.0]
    assert found["b"].to_pylist() == [None, "x", "TRUE"]
    assert np.isnan(found["a"].to_numpy()[2])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1}\n{"a": 2', "f.json, line 2, is no JSON: "),
        ('[{"a": 1}, {"a": 2]', "f.json is no JSON: "),
        ('{"a": 1}\n[1, 2]', "f.json, line 2, is no JSON object"),
        ('{"a": 1}\n\n{"a": {"b": 1}}', "f.json, line 3, holds an array or object as 'a'"),
        ('{"a": "graz"}', "Row 1 of the frame's column 'a' holds 'graz', which is no number"),
    ],
)
def test_a_json_file_that_is_no_matrix_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(DMLError, match=says.replace(".", r"\.")):
        read(tmp_path / "f.json")


LIST = """
L = list(a = X, b = list(7, "Graz", X[1, ]), c = F, d = TRUE)
write(L, $p)
M = read($p)
inner = as.list(M["b"])
A = as.matrix(M["a"]); row = as.matrix(inner[3]); seven = as.scalar(inner[1]); town = as.scalar(inner[2])
G = as.frame(M["c"]); d = as.scalar(M["d"]); n = length(M)
"""


def test_a_list_is_read_back_with_what_lies_in_it(tmp_path: Path) -> None:
    frame = pa.table({"k": ["x", None], "n": [1.0, 2.5]})
    (tmp_path / "L").write_text("what was there before")
    results = ["A", "row", "seven", "town", "G", "d", "n"]
    found = dml.run(LIST, {"X": MATRIX, "F": frame}, results, nvargs={"p": str(tmp_path / "L")})
    np.testing.assert_array_equal(found["A"], MATRIX)
    np.testing.assert_array_equal(found["row"], MATRIX[:1])
    assert (found["seven"], found["town"], found["d"], found["n"]) == (7, "Graz", True, 4)
    assert found["G"].to_pydict() == {"C1": ["x", None], "C2": [1.0, 2.5]}
    assert sorted(path.name for path in (tmp_path / "L").iterdir() if path.suffix != ".mtd") == [
        "0_a",
        "1_b",
        "2_c",
        "3_d",
    ]


def test_a_list_that_lacks_an_item_is_refused(tmp_path: Path) -> None:
    dml.run("write(list(1, 2, 3), $p)", outputs=[], nvargs={"p": str(tmp_path / "L")})
    (tmp_path / "L" / "1_null").unlink()
    with pytest.raises(DMLError, match="The folder L holds 2 of the 3 items of a list"):
        read(tmp_path / "L")


def test_a_list_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    place = {"p": str(tmp_path / "L")}
    dml.run("write(list(1, 2, 3), $p)", outputs=[], nvargs=place)
    with pytest.raises(DMLError, match="A frame cannot be written in the format 'mm'"):
        dml.run('write(list(4, F), $p, format="mm")', {"F": pa.table({"k": ["x"]})}, outputs=[], nvargs=place)
    assert dml.run("L = read($p); s = as.scalar(L[2])", outputs=["s"], nvargs=place)["s"] == 2
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
