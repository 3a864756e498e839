"""Nets by SQL: architectures in a table, training, evaluation, predictions and several models, on DuckDB and PostgreSQL."""

from __future__ import annotations

import json

import pytest
import torch

from braidwater.deep.programs import export_program
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
    assert warm[3] > 1.5 * warm[1]  # a new key starts afresh


def test_a_warm_start_goes_on_with_the_optimizer(duckdb_session):
    """One step an iteration: two iterations are one, and one more that knows Adam's moments."""
    fit = "SELECT madlib.torch_fit('points', '{}', 'nets', 1, 'y', 'a, b', {}, 'batch_size=5000', {}, warm_start => {})"
    session = duckdb_session
    session.execute(fit.format("whole", COMPILED, 6, "FALSE"))
    for name in ("halves", "forgetful"):
        session.execute(fit.format(name, COMPILED, 3, "FALSE"))
    session.execute("UPDATE forgetful SET optimizer_state = NULL")
    for name in ("halves", "forgetful"):
        session.execute(fit.format(name, COMPILED, 3, "TRUE"))
    last = [
        session.execute(f"SELECT training_loss_final FROM {name}_summary").fetchone()[0]
        for name in ("whole", "halves", "forgetful")
    ]
    assert last[1] == pytest.approx(last[0], rel=1e-5)
    assert abs(last[2] - last[0]) > 1e-3 * last[0]
    other = COMPILED.replace("Adam(lr=0.02)", "SGD(lr=0.02, momentum=0.9)")  # which has other moments: it begins afresh
    session.execute(fit.format("halves", other, 1, "TRUE"))


@pytest.mark.parametrize("place", ["duckdb", pytest.param("postgres", marks=pytest.mark.slow)])
def test_a_net_can_be_a_program_which_begins_with_its_own_weights(place, request):
    """A module that no import path leads to: its graph and weights are data in the table, and in that of the model."""
    session = request.getfixturevalue(f"{place}_session")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Dropout(0.1), torch.nn.Linear(8, 2))
    program, weights = export_program(module, (2,))
    binary = f"'\\x{weights.hex()}'::bytea" if place == "postgres" else f"from_hex('{weights.hex()}')"
    session.execute(f"SELECT madlib.load_torch_program('programs', $${program}$$, {binary}, 'mine')")
    fit = f"SELECT madlib.torch_fit('points', 'of_program', 'programs', 1, 'y', 'a, b', {COMPILED}, 'batch_size=32', 3)"
    session.execute(fit)
    session.execute("SELECT madlib.torch_evaluate('of_program', 'points', 'program_measured')")
    assert session.execute("SELECT metric FROM program_measured").fetchone()[0] > 0.95
    kept = session.execute("SELECT program FROM of_program").fetchone()[0]
    assert json.loads(kept)["nodes"][0]["op"] == "aten.linear.default"
    session.execute("UPDATE programs SET program = replace(program, 'aten.tanh.default', 'aten.from_file.default')")
    with pytest.raises(StatementError, match=r"aten\.from_file\.default"):
        session.execute(fit.replace("of_program", "bad_program"))


GRIDS = (
    "$${'loss': ['cross_entropy'], 'metrics': ['accuracy'], 'optimizer_params_list': ["
    "{'optimizer': ['Adam'], 'lr': [1e-5, 1e-1, 'log']}, "
    "{'optimizer': ['SGD'], 'lr': [0.1], 'momentum': [0.1, 0.99, 'log_near_one']}]}$$, "
    "$${'batch_size': [32, 64], 'epochs': [1]}$$"
)


@pytest.mark.parametrize("place", ["duckdb", pytest.param("postgres", marks=pytest.mark.slow)])
def test_nets_are_searched_by_hyperband_and_the_best_can_be_used(place, request):
    session = request.getfixturevalue(f"{place}_session")
    session.execute("SELECT madlib.load_torch_model('arches', 'braidwater.deep.modules:MLP', '{\"hidden\": [4]}')")
    session.execute("SELECT madlib.load_torch_model('arches', 'braidwater.deep.modules:MLP', '{\"hidden\": [8]}')")
    ((told,),) = session.execute(
        f"SELECT madlib.torch_automl('points', 'found', 'arches', 'tried', ARRAY[1, 2], {GRIDS}, 'y', 'a, b', 'hyperband', "
        "'R=4, eta=2', 7, validation_table => 'points')"
    ).fetchall()
    session.execute("SELECT madlib.hyperband_schedule('rounds', 4, 2)")
    ((trials,),) = session.execute("SELECT sum(n_i) FROM rounds WHERE i = 0").fetchall()
    tried = session.execute("SELECT mst_key, model_id, compile_params FROM tried ORDER BY mst_key").fetchall()
    assert len(tried) == trials == 9
    assert {one[1] for one in tried} == {1, 2}
    assert len({one[2] for one in tried}) == trials
    losses = session.execute("SELECT mst_key, validation_loss_final, metrics_iters FROM found_info").fetchall()
    lasted = [iterations[-1] for _, _, iterations in losses]
    assert sorted(set(lasted)) == [1, 2, 4]  # most are stopped early
    ((best,),) = session.execute("SELECT best_mst_key FROM found_summary").fetchall()
    assert best == min((loss, key) for key, loss, iterations in losses if iterations[-1] == 4)[1]
    assert f"mst_key {best} is the best of 9" in told
    session.execute(f"SELECT madlib.torch_evaluate('found', 'points', 'of_best', {best})")
    ((loss,),) = session.execute("SELECT loss FROM of_best").fetchall()
    assert loss == pytest.approx({key: loss for key, loss, _ in losses}[best], rel=1e-5)


@pytest.mark.parametrize(
    "method", ["'grid', 'num_iterations=1'", "'hyperopt', 'num_configs=4, num_iterations=1, algorithm=rand'"]
)
def test_nets_are_searched_on_a_grid_and_at_random(duckdb_session, method):
    duckdb_session.execute("DROP TABLE IF EXISTS of_grid, of_grid_info, of_grid_summary, on_grid")
    grids = "$${'optimizer_params_list': [{'lr': [0.01, 0.02]}]}$$, $${'batch_size': [200, 400]}$$"
    duckdb_session.execute(
        f"SELECT madlib.torch_automl('points', 'of_grid', 'nets', 'on_grid', ARRAY[1], {grids}, 'y', 'a, b', {method})"
    )
    rows = duckdb_session.execute("SELECT compile_params, fit_params FROM on_grid").fetchall()
    assert len(rows) == 4
    assert "optimizer='adam(lr=0.01)'" in {one.replace('"', "'") for one, _ in rows}
    if "grid'" in method:
        assert len(set(rows)) == 4


def test_the_schedule_is_madlibs(duckdb_session):
    duckdb_session.execute("SELECT madlib.hyperband_schedule('schedule', 81, 3)")
    rows = duckdb_session.execute("SELECT s, n_i, r_i FROM schedule ORDER BY s DESC, i").fetchall()
    assert rows == [
        (4, 81, 1), (4, 27, 3), (4, 9, 9), (4, 3, 27), (4, 1, 81), (3, 27, 3), (3, 9, 9), (3, 3, 27), (3, 1, 81),
        (2, 9, 9), (2, 3, 27), (2, 1, 81), (1, 6, 27), (1, 2, 81), (0, 5, 81),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("grids", "method", "told"),
    [
        ("$$__import__('os')$$, '{}'", "'hyperband'", "a dictionary of lists"),
        ("'{}', $${'epochs': [1, 2]}$$", "'hyperband'", "one value: Hyperband grants iterations"),
        ("$${'optimizer_params_list': [{'lr': [1e-3, 1, 'log']}]}$$, '{}'", "'grid'", "ranges are for hyperband"),
        ("'{}', '{}'", "'magic'", "one of hyperband, hyperopt, grid"),
        ("'{}', '{}'", "'hyperopt', 'algorithm=atpe'", "tpe or rand"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_a_net_is_trained(duckdb_session, grids, method, told):
    with pytest.raises(StatementError, match=told):
        duckdb_session.execute(
            f"SELECT madlib.torch_automl('points', 'bad', 'nets', 'bad_tried', ARRAY[1], {grids}, 'y', 'a, b', {method})"
        )


def test_what_a_table_names_is_imported_only_from_trusted_packages(duckdb_session, monkeypatch):
    with pytest.raises(StatementError, match="not imported on its word"):
        duckdb_session.execute("SELECT madlib.load_torch_model('nets', 'subprocess:check_output', '{}')")
    duckdb_session.execute("INSERT INTO nets (model_id, module) SELECT 9, 'os:system'")
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
