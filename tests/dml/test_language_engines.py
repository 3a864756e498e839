"""Scripts over tables that lie with an engine: the numbers of the matrix in memory, and the rows stay there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from braidwater import dml
from braidwater.cli.app import app
from braidwater.dml.explain import Explanation
from braidwater.dml.runtime.spread import Cut, Spread
from braidwater.dml.runtime.streamed import TableMatrix
from braidwater.engines import LocalEngine, engine_at
from braidwater.engines.postgres import PostgresEngine
from braidwater.engines.postgres.install import install
from braidwater.errors import OptionError, TableChangedError
from braidwater.tables import Table, table, write_table

if TYPE_CHECKING:
    from postgres_server import Server

ROWS, COLUMNS = 30_000, 8
SPLIT = f"X = D[, 1:{COLUMNS}]\ny = D[, {COLUMNS + 1}]\n"

SCRIPTS = {
    "sums": "B = t(colSums(X)) * sum(y) + max(X) - min(rowSums(X ^ 2))",
    "least squares": "B = lmDS(X=X, y=y, icpt=1, verbose=FALSE)",
    "conjugate gradient": "B = lmCG(X=X, y=y, icpt=2, maxi=4, verbose=FALSE)",
    "standardised": "[Z, centre, spread] = scale(X, TRUE, TRUE)\nfor (i in 1:2) B = t(Z) %*% y + i",
    "columns that change": "B = l2svm(X=X, Y=2 * (y > 0) - 1, intercept=TRUE, maxIterations=3, verbose=FALSE)",
    "some rows": "B = X[20000:20003, 3:4] + sum(X[29999:30000, 1:2])",
    "clusters": "[B, Y] = kmeans(X=X, k=3, runs=1, max_iter=3, is_verbose=FALSE, seed=3)",
    "in the order of the rows": "w = seq(1, nrow(X))\nB = t(X) %*% (w * y)\nr = X %*% B\nB = B + r[1, 1] + r[17000, 1]",
}


@pytest.fixture(scope="module")
def cells() -> Any:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(ROWS, COLUMNS)).round(1)
    return np.hstack([X, X @ rng.normal(size=(COLUMNS, 1)) + rng.normal(size=(ROWS, 1))])


@pytest.fixture(scope="module")
def stored(server: Server, cells: Any) -> Table:
    """The rows in a server, where they are some dozen blocks."""
    server.run("CREATE DATABASE scanned")
    address = server.address("scanned")
    install(address)
    names = [*(f"x{i}" for i in range(COLUMNS)), "y"]
    return write_table(pa.table({name: cells[:, i] for i, name in enumerate(names)}), f"{address}::houses")


@pytest.fixture(scope="module")
def inside(stored: Table) -> Iterator[PostgresEngine]:
    with PostgresEngine(stored.address.partition("::")[0], 2, executor="sessions") as engine:
        yield engine


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_server_gives_what_the_matrix_gives_and_no_row_is_read_here(
    script: str, stored: Table, inside: PostgresEngine, cells: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = dml.run(SPLIT + script, {"D": cells}, ["B"])["B"]

    def refused(*_: Any) -> None:
        raise AssertionError("rows were read here")

    monkeypatch.setattr(LocalEngine, "aggregate", refused)
    monkeypatch.setattr(type(stored), "to_arrow", refused)
    found = dml.run(SPLIT + script, {"D": stored}, ["B"], engine=inside)["B"]
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())


def test_tables_side_by_side_are_warned_of(stored: Table, inside: PostgresEngine, cells: Any) -> None:
    others = [table(f"{stored.address}::SELECT {names} FROM houses", name=name)
              for names, name in (("x0, x1, x2, x3, x4", "left"), ("x5, x6, x7, y, x0", "right"))]  # fmt: skip
    with pytest.warns(match="'left' and 'right' are put side by side"):
        found = dml.run("s = sum(L * R)", {"L": others[0], "R": others[1]}, ["s"], engine=inside)["s"]
    assert found == pytest.approx((cells[:, :5] * cells[:, [5, 6, 7, 8, 0]]).sum())


def test_what_is_small_is_brought(stored: Table, inside: PostgresEngine) -> None:
    few = table(f"{stored.address}::SELECT x0, x1 FROM houses LIMIT 100", name="few")
    told = Explanation("runtime")
    results = dml.run("n = nrow(A)\ns = sum(A)", {"A": few, "D": stored}, ["n"], engine=inside, explain=told)
    assert results["n"] == 100
    (note,) = told.notes
    assert note.startswith("houses, 30000 x 9, 2.2 MB, stays where it lies: engine 'postgres' scans it by sessions")


def test_the_shell_names_the_engine_by_its_address(stored: Table, cells: Any, tmp_path: Path) -> None:
    script = tmp_path / "total.dml"
    script.write_text('D = read($1)\nprint("total " + round(sum(D[, 1:3])))')
    server = stored.address.partition("::")[0]
    words = ["dml", str(script), "--explain", "hops", "--engine", server, "-args", f"{server}::houses"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert f"total {np.floor(cells[:, :3].sum() + 0.5):.0f}" in result.output
    assert "stays where it lies: engine 'postgres'" in result.output


def test_an_engine_that_is_none_is_refused() -> None:
    with pytest.raises(OptionError, match="engine='mysql://here' is not possible"):
        engine_at("mysql://here")
    with pytest.raises(OptionError, match="'mysql://here'"):
        dml.run("s = 1", outputs=["s"], engine="mysql://here")


def test_a_session_that_is_lost_is_told_anew_what_it_knew(
    server: Server, stored: Table, inside: PostgresEngine, cells: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[Any] = []
    scan = TableMatrix.aggregate

    def disturbed(matrix: TableMatrix, aggregate: Any) -> Any:
        passes.append(aggregate)
        if len(passes) in (4, 6):
            session = inside.sessions.take(2)[1]
            server.run(f"SELECT pg_terminate_backend({session.info.backend_pid})")
        return scan(matrix, aggregate)

    monkeypatch.setattr(TableMatrix, "aggregate", disturbed)
    found = dml.run(SPLIT + SCRIPTS["columns that change"], {"D": stored}, ["B"], engine=inside)["B"]
    expected = dml.run(SPLIT + SCRIPTS["columns that change"], {"D": cells}, ["B"])["B"]
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)
    assert len(passes) > 7


def test_a_column_that_workers_made_is_not_sent_back_to_them(stored: Table, inside: PostgresEngine) -> None:
    sent: list[int] = []
    request = type(inside.sessions)._request

    def counted(self: Any, *arguments: Any) -> bytes:
        packed: bytes = request(self, *arguments)
        sent.append(len(packed))
        return packed

    script = SPLIT + "w = X %*% matrix(1, ncol(X), 1) > 0\nif (sum(w) > 0) { for (i in 1:4) s = sum(w * y * i) }"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(inside.sessions), "_request", counted)
        dml.run(script, {"D": stored}, ["s"], engine=inside)
    assert len(sent) >= 8
    assert max(sent) < 8 * ROWS / 4  # not even a session's half of a column


def test_a_piece_that_is_not_there_is_an_error_and_no_other_row() -> None:
    spread = Spread.of(np.arange(10.0)[:, None], [Cut(0, 0, 4), Cut(1, 4, 3), Cut(2, 7, 3)])
    np.testing.assert_array_equal(spread.rows(2, 9).ravel(), np.arange(2.0, 9.0))  # across three pieces
    middle = spread.part(range(1, 2))
    np.testing.assert_array_equal(middle.rows(5, 7).ravel(), [5.0, 6.0])
    for begin, end in ((3, 5), (6, 8), (8, 9)):
        with pytest.raises(TableChangedError, match=r"Row \d is in another block"):
            middle.rows(begin, end)


def test_what_is_remembered_for_workers_is_bounded_by_memory(stored: Table, inside: PostgresEngine) -> None:
    with TableMatrix(stored, memory=32 * 10**6, engine=inside) as matrix:
        columns = [np.zeros((60_000, 1)) for _ in range(9)]  # of half a megabyte each
        for column in columns:
            matrix.remember(column, Spread.whole(column))
        assert list(matrix._spread) == [id(column) for column in columns[1:]]
        large = np.zeros((600_000, 1))
        matrix.remember(large, Spread.whole(large))
        assert not matrix._spread
