"""Scripts over tables of Spark: the numbers of the matrix in memory, and nothing but states reaches the driver."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from braidwater import dml, table
from braidwater.engines import LocalEngine
from braidwater.engines.spark.line import Line

ROWS, COLUMNS = 40_000, 6
SCRIPTS = {
    "conjugate gradient": "B = lmCG(X=X, y=y, icpt=1, maxi=3, verbose=FALSE)",
    "columns that change": "B = l2svm(X=X, Y=2 * (y > 0) - 1, intercept=TRUE, maxIterations=3, verbose=FALSE)",
    "in the order of the rows": "w = seq(1, nrow(X))\nr = X %*% (t(X) %*% (w * y))\nB = rbind(r[1, ], r[25001, ])",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(ROWS, COLUMNS)).round(1)
    cells = np.hstack([X, X @ rng.normal(size=(COLUMNS, 1)) + rng.normal(size=(ROWS, 1))])
    folder = tmp_path_factory.mktemp("rows")
    data = pa.table({f"x{i}": cells[:, i] for i in range(COLUMNS + 1)})
    for part, begin in enumerate(range(0, ROWS, 15_000)):
        pq.write_table(data[begin : begin + 15_000], folder / f"part-{part}.parquet", row_group_size=4_000)
    return str(folder), cells


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
@pytest.mark.parametrize("as_frame", [True, False], ids=["a data frame", "files"])
def test_a_script_gives_what_the_matrix_gives(
    script: str, as_frame: bool, files: tuple[str, Any], spark: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, cells = files
    script = f"X = D[, 1:{COLUMNS}]\ny = D[, {COLUMNS + 1}]\n" + script
    expected = dml.run(script, {"D": cells}, ["B"])["B"]

    def refused(*_: Any) -> None:
        raise AssertionError("rows were read here")

    monkeypatch.setattr(LocalEngine, "aggregate", refused)
    data = table(spark.read.parquet(folder) if as_frame else folder)
    found = dml.run(script, {"D": data}, ["B"], engine=make(2))["B"]
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())


def test_a_column_that_workers_made_is_not_sent_back_nor_to_the_others(
    files: tuple[str, Any], spark: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, int]] = []
    send = Line.send

    def counted(line: Line, kind: str, content: bytes = b"") -> None:
        sent.append((kind, len(content)))
        send(line, kind, content)

    folder, cells = files
    monkeypatch.setattr(Line, "send", counted)
    script = f"X = D[, 1:{COLUMNS}]\ny = D[, {COLUMNS + 1}]\ns = 0\n"
    script += "for (i in 1:5) { w = exp(-i * abs(y))\nif (sum(w) > 0) s = s + sum(w * rowSums(X)) }"
    found = dml.run(script, {"D": table(folder)}, ["s"], engine=make(2))["s"]
    X, y = cells[:, :COLUMNS], cells[:, COLUMNS:]
    assert found == pytest.approx(sum((np.exp(-i * abs(y)) * X.sum(1, keepdims=True)).sum() for i in range(1, 6)))
    assert [kind for kind, _ in sent].count("a") > 12  # two workers
    # workers that stay do not have the column that jobs made before they came: each is told its half of that one, once
    assert sum(size > 8 * ROWS / 8 for _, size in sent) <= 2


def test_workers_that_scan_make_room_for_turns_of_a_loop(files: tuple[str, Any], spark: Any, make: Any) -> None:
    folder, cells = files
    script = """
m = 0
for (i in 1:4) m = m + sum(D * (i + m * 0))
R = matrix(0, 4, 1)
parfor (i in 1:4, mode=REMOTE_SPARK) R[i, 1] = i * m
s = sum(D * m) + sum(R)"""
    found = dml.run(script, {"D": table(folder)}, ["s"], engine=make(3))["s"]  # all slots of the session
    m = 10 * cells.sum()
    assert found == pytest.approx(cells.sum() * m + 10 * m)
