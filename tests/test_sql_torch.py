"""Nets by SQL: architectures in a table, training, evaluation, predictions and several models, on DuckDB and PostgreSQL."""

from __future__ import annotations

import json

import pytest

from braidwater.engines.postgres.install import install
from braidwater.errors import StatementError
from braidwater.sql import connect

COMPILED = "$$loss='categorical_crossentropy', optimizer='Adam(lr=0.02)', metrics=['accuracy']$$"
POINTS = (
    "CREATE TABLE points AS SELECT i AS id, cos(i) AS a, sin(i * 1.7) AS b, "
    "CASE WHEN cos(i) + sin(i * 1.7) > 0 THEN 'hi' ELSE 'lo' END AS y FROM generate_series(1, 3000) AS t(i)"
)


@pytest.fixture(scope="module")
def duckdb_session():
    with connect() as session:
        yield prepared(session)


@pytest.fixture(scope="module")
def postgres_session(server):
    server.run("CREATE DATABASE by_sql")
    install(server.address("by_sql"))
    with connect(server.address("by_sql")) as session:
        yield prepared(session)


def prepared(session):
    session.execute(POINTS)
    session.execute(
        "SELECT madlib.load_torch_model('nets', 'braidwater.deep.modules:MLP', '{\"hidden\": [16]}', 'small')"
    )
    return session


@pytest.mark.parametrize("place", ["duckdb", pytest.param("postgres", marks=pytest.mark.slow)])
def test_a_net_is_trained_told_of_and_used(place, request):
    session = request.getfixturevalue(f"{place}_session")
    session.execute(
        f"SELECT madlib.torch_fit('points', 'net', 'nets', 1, 'y', 'a, b', {COMPILED}, 'batch_size=32', 4, FALSE, 'points', 2)"
    )
    asked = "metrics_iters, training_loss, validation_metrics, validation_metrics_final, class_values, model_id"
    ((iterations, losses, metrics, final, classes, number),) = session.execute(
        f"SELECT {asked} FROM net_summary"
    ).fetchall()
    assert (iterations, classes, number) == ([2, 4], ["hi", "lo"], 1)
    assert losses[1] < losses[0] < 0.3
    assert metrics[1] == final > 0.95

    session.execute("SELECT madlib.torch_evaluate('net', 'points', 'measured')")
    ((loss, accuracy),) = session.execute("SELECT loss, metric FROM measured").fetchall()
    assert accuracy == pytest.approx(final, abs=1e-6)

    session.execute("SELECT madlib.torch_predict('net', 'points', 'id', 'told')")
    right = (
        "SELECT count(*), count(DISTINCT t.id), sum(t.prob), sum(CASE WHEN t.rank = 1 AND t.class_value = p.y THEN 1 END), "
        "-avg(CASE WHEN t.class_value = p.y THEN ln(t.prob) END) FROM told t JOIN points p ON p.id = t.id"
    )
    ((rows, ids, total, hits, mean),) = session.execute(right).fetchall()
    assert (rows, ids) == (6000, 3000)
    assert float(total) == pytest.approx(3000)
    assert hits / 3000 == pytest.approx(accuracy)
    assert mean == pytest.approx(loss, rel=1e-6)  # by the database's own arithmetic

    warm = f"SELECT madlib.torch_fit('points', 'net', 'nets', 1, 'y', 'a, b', {COMPILED}, 'batch_size=32', 1, warm_start => TRUE)"
    session.execute(warm)
    ((went_on,),) = session.execute("SELECT training_loss_final FROM net_summary").fetchall()
    assert went_on < losses[0]


@pytest.mark.parametrize("place", ["duckdb", pytest.param("postgres", marks=pytest.mark.slow)])
def test_several_nets_are_trained_by_a_table_and_go_on_by_their_keys(place, request):
    session = request.getfixturevalue(f"{place}_session")
    session.execute(
        "CREATE TABLE trials AS SELECT k AS mst_key, 1 AS model_id, 'batch_size=64' AS fit_params, "
        "'optimizer=''Adam(lr=' || k / 100.0 || ')''' AS compile_params FROM generate_series(1, 2) AS t(k)"
    )
    fit = "SELECT madlib.torch_fit_multiple_model('points', 'many', 'trials', 'nets', 'y', 'a, b', 2"
    session.execute(f"{fit}, FALSE, 'points', 1)")
    asked = "SELECT mst_key, training_loss, validation_loss_final FROM many_info ORDER BY mst_key"
    (one, other) = session.execute(asked).fetchall()
    assert (one[0], other[0]) == (1, 2)
    assert other[1][0] < one[1][0]  # the larger rate learns faster
    session.execute("SELECT madlib.torch_evaluate('many', 'points', 'of_two', 2)")
    ((loss,),) = session.execute("SELECT loss FROM of_two").fetchall()
    assert loss == pytest.approx(other[2], rel=1e-5)

    session.execute("INSERT INTO trials SELECT 3, 1, 'batch_size=64', 'optimizer=''Adam(lr=0.01)'''")
    session.execute(f"{fit}, warm_start => TRUE)")
    warm = {key: losses[-1] for key, losses, _ in session.execute(asked).fetchall()}
    assert warm[1] < one[1][-1]
    assert warm[3] == pytest.approx(one[1][-1], rel=1e-6)  # a new key starts afresh: as the first did


def test_what_a_table_names_is_imported_only_from_trusted_packages(duckdb_session, monkeypatch):
    with pytest.raises(StatementError, match="not imported on its word"):
        duckdb_session.execute("SELECT madlib.load_torch_model('nets', 'subprocess:check_output', '{}')")
    duckdb_session.execute("INSERT INTO nets SELECT 9, 'os:system', '{}', NULL, NULL")
    fit = "SELECT madlib.torch_fit('points', 'bad', 'nets', {}, 'y', 'a, b', {}, 'batch_size=32', 1)"
    with pytest.raises(StatementError, match="not imported on its word"):
        duckdb_session.execute(fit.format(9, "''"))
    with pytest.raises(
        StatementError, match="a class of torch modules"
    ):  # reached through a trusted module's own imports
        duckdb_session.execute("SELECT madlib.load_torch_model('nets', 'braidwater.engines.facts:os.system', '{}')")
    monkeypatch.setenv("BRAIDWATER_TRUSTED_PACKAGES", "torch.nn, json")
    duckdb_session.execute("SELECT madlib.load_torch_model('nets', 'torch.nn:Linear')")
    duckdb_session.execute("SELECT madlib.delete_torch_model('nets', 9)")
    assert duckdb_session.execute("SELECT count(*) FROM nets WHERE model_id = 9").fetchall() == [(0,)]


@pytest.mark.parametrize(
    ("compile_params", "told"),
    [
        ("$$los='mse'$$", "did you mean 'loss'"),
        ("$$loss=__import__('os')$$", "name=value pairs"),
        ("$$optimizer='adam(rate=1)'$$", "not known"),
        ("$$loss='mse'$$", "regression needs a number"),
    ],
)
def test_parameters_are_read_and_never_run(duckdb_session, compile_params, told):
    with pytest.raises(StatementError, match=told):
        duckdb_session.execute(
            f"SELECT madlib.torch_fit('points', 'bad', 'nets', 1, 'y', 'a, b', {compile_params}, 'batch_size=32', 1)"
        )
    assert duckdb_session.execute(
        "SELECT count(*) FROM information_schema.tables WHERE table_name = 'bad'"
    ).fetchall() == [(0,)]


def test_models_in_tables_are_json_and_safetensors(duckdb_session):
    duckdb_session.execute(
        "SELECT madlib.torch_fit('points', 'plain', 'nets', 1, 'y', 'a, b', '', 'batch_size=500', 1)"
    )
    ((weights, arch),) = duckdb_session.execute("SELECT model_weights, model_arch FROM plain").fetchall()
    assert json.loads(arch)["document"]["module"] == "braidwater.deep.modules:MLP"
    assert json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    duckdb_session.execute("UPDATE plain SET model_weights = 'x'::BLOB")
    with pytest.raises(Exception, match="truncated"):
        duckdb_session.execute("SELECT madlib.torch_evaluate('plain', 'points', 'of_a_broken_model')")
