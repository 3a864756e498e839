"""Sessions: what strings may hold, what is left behind by what fails, and rows that are not as they should be."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from braidwater import KMeans, LinearRegression, LogisticRegression
from braidwater.errors import OptionError, StatementError
from braidwater.sql import connect, postgres_scalars
from braidwater.sql.functions.least_squares import least_squares
from braidwater.sql.names import parse_columns, parse_expression, parse_name
from braidwater.sql.reference import filled
from braidwater.sql.registry import FUNCTIONS
from braidwater.sql.scalars import SCALARS
from braidwater.sql.script import is_open, statements

INJECTIONS = [
    "fish; DROP TABLE fish",
    "fish'; DROP TABLE fish; --",
    'fish"; DROP TABLE fish; --',
    "fish -- ",
    "fish WHERE 1=1",
    "fish, fish AS other",
    "(SELECT * FROM fish)",
    "(SELECT 1) AS x",
    "fish) UNION SELECT * FROM (SELECT 1",
    "read_csv('/etc/passwd')",
    "fish AS f(a)",
    "fish TABLESAMPLE 1%",
    "",
    "NULL",
    "'fish'",
    "$$fish$$",
]
EXPRESSIONS = [
    "x, y",
    "x; DROP TABLE fish",
    "(SELECT max(x) FROM secrets)",
    "x FROM fish; --",
    "x) FROM secrets --",
    "sum(x)",
    "row_number() OVER ()",
    "*",
    "x AS y",
    "EXISTS (SELECT 1 FROM secrets)",
    "unnest(ARRAY[1])",
    "x WHERE FALSE",
    "$1",
    "",
]


FISH = """
CREATE TABLE fish AS SELECT i AS id, (i % 7)::double precision AS a, (i * i % 11)::double precision AS b,
    1 + 2 * (i % 7) - 3 * (i * i % 11) AS y, (i % 5 + i % 3) > 3 AS c, CASE WHEN i % 2 = 0 THEN 'even' ELSE 'odd' END AS g
FROM generate_series(1, 40) AS t(i);
CREATE TABLE secrets AS SELECT 42 AS x
"""


@pytest.fixture
def session():
    """A session with a table fish of 40 rows: y = 1 + 2 a - 3 b, a truth value c, and a group g."""
    with connect() as found:
        yield found.execute(FISH)


@pytest.fixture(params=["duckdb", "postgres"])
def anywhere(request):
    """The same, on either database."""
    if request.param == "duckdb":
        with connect() as found:
            yield found.execute(FISH)
        return
    server = request.getfixturevalue("server")
    server.run("DROP DATABASE IF EXISTS fish WITH (FORCE)", "CREATE DATABASE fish")
    postgres_scalars.install(server.address("fish"))
    with connect(server.address("fish")) as found:
        yield found.execute(FISH)


def tables(session) -> set[str]:
    return {row[0] for row in session.execute("SELECT table_name FROM information_schema.tables").fetchall()}


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@pytest.mark.parametrize(
    "call",
    [
        "madlib.linregr_train({}, 'out', 'y', 'ARRAY[1, a]')",
        "madlib.linregr_train('fish', {}, 'y', 'ARRAY[1, a]')",
        "madlib.summary({}, 'out')",
        "madlib.kmeanspp({}, 'ARRAY[a, b]', 2)",
        "madlib.pca_train('fish', 'out', {}, 1)",
        "madlib.train_test_split({}, 'out', 0.5)",
        "madlib.validation_preprocessor_dl('fish', 'out', 'y', 'a', {})",
    ],
)
def test_a_string_that_is_no_name_is_refused_and_nothing_is_done(session, call):
    before = tables(session)
    for text in INJECTIONS:
        with pytest.raises(StatementError):
            session.execute(f"SELECT {call.format(quoted(text))}")
    assert tables(session) == before
    assert session.execute("SELECT count(*) FROM fish").fetchone() == (40,)


@pytest.mark.parametrize(
    "call",
    [
        "madlib.linregr_train('fish', 'out', {}, 'ARRAY[1, a]')",
        "madlib.linregr_train('fish', 'out', 'y', {})",
        "madlib.logregr_train('fish', 'out', 'c', {})",
        "madlib.kmeans_random('fish', {}, 2)",
        "madlib.minibatch_preprocessor('fish', 'out', 'y', {})",
    ],
)
def test_a_string_that_is_no_expression_of_a_row_is_refused(session, call):
    before = tables(session)
    for text in EXPRESSIONS:
        with pytest.raises(StatementError):
            session.execute(f"SELECT {call.format(quoted(text))}")
    assert tables(session) == before


def test_lists_of_columns_are_columns(session):
    for text in ("a; b", "a b", "a)", "1", "sum(a)", "a, a", "a AS b", "(SELECT 1)", "fish.a"):
        with pytest.raises(StatementError):
            session.execute(f"SELECT madlib.linregr_train('fish', 'out', 'y', 'ARRAY[1, a]', {quoted(text)})")
    assert "out" not in tables(session)


@given(st.text(max_size=30))
@profile(max_examples=300)
def test_any_text_is_a_name_an_expression_or_an_error_of_ours(text):
    for parse in (parse_name, parse_columns, parse_expression):
        with suppress(OptionError):
            found = parse("argument", text)
            if parse is parse_name:  # what is sent names the same table
                assert parse_name("argument", found.table.sql("postgres")).parts == found.parts


@pytest.mark.parametrize(
    "name", ['"Big Fish"', '"fish; DROP TABLE fish"', '"naïve ""quotes"""', "pond.plain", "Capital"]
)
def test_names_in_quotes_capitals_and_schemas_are_tables(anywhere, name):
    anywhere.execute("CREATE SCHEMA pond")
    anywhere.execute(f"CREATE TABLE {name} AS SELECT * FROM fish")
    stem = name.strip('"')
    output = f'"{stem} out"' if name.startswith('"') else f"{name}_out"
    anywhere.execute(f"SELECT madlib.linregr_train({quoted(name)}, {quoted(output)}, 'y', 'ARRAY[1, a, b]', 'g')")
    summary = f'"{stem} out_summary"' if name.startswith('"') else f"{name}_out_summary"
    assert anywhere.execute(f"SELECT source_table FROM {summary}").fetchone() == (name,)
    for (coef,) in anywhere.execute(f"SELECT coef FROM {output}").fetchall():
        assert coef == pytest.approx([1, 2, -3])


def test_columns_in_quotes_and_grouping_columns_keep_their_types(anywhere):
    anywhere.execute(
        'CREATE TABLE odd AS SELECT y AS "The ""y""", a AS "select", b, DATE \'2020-01-01\' + (id % 2)::int AS "When" FROM fish'
    )
    names = {"y": '"The ""y"""', "x": 'ARRAY[1, "select", b]', "g": '"When"'}
    call = "SELECT madlib.linregr_train('odd', 'out', '{y}', '{x}', '{g}')"
    anywhere.execute(call.format(**names))
    found = anywhere.execute('SELECT "When"::text, coef FROM out ORDER BY 1').fetchall()
    assert [row[0] for row in found] == ["2020-01-01", "2020-01-02"]
    assert found[0][1] == pytest.approx([1, 2, -3])


def test_an_output_table_that_is_there_is_refused_and_kept(anywhere):
    for taken in ("out", "out_summary"):
        anywhere.execute(f"CREATE TABLE {taken} AS SELECT 7 AS kept")
        with pytest.raises(StatementError, match=f"The output table {taken} exists already"):
            anywhere.execute("SELECT madlib.linregr_train('fish', 'out', 'y', 'ARRAY[1, a]')")
        assert anywhere.execute(f"SELECT kept FROM {taken}").fetchone() == (7,)
        assert "out" not in tables(anywhere) - {taken}
        anywhere.execute(f"DROP TABLE {taken}")


def test_a_call_that_fails_late_leaves_nothing(session):
    """The model is written, and then the statement around the call fails."""
    before = tables(session)
    for statement in (
        "SELECT madlib.linregr_train('fish', 'out', 'y', 'ARRAY[1, a]'), 1 / no_such_column",
        "CREATE TABLE fish AS SELECT madlib.linregr_train('fish', 'out', 'y', 'ARRAY[1, a]')",
        "SELECT madlib.linregr_train('fish', 'out', 'y', 'ARRAY[1, a]'), madlib.linregr_train('fish', 'out', 'y', 'ARRAY[1, b]')",
    ):
        with pytest.raises(StatementError):
            session.execute(statement)
        assert tables(session) == before


def test_a_transaction_of_the_user_sees_its_own_rows_and_is_rolled_back_whole(session):
    session.execute("BEGIN; CREATE TEMP TABLE pond AS SELECT * FROM fish; INSERT INTO pond SELECT * FROM fish;")
    session.execute("SELECT madlib.linregr_train('pond', 'out', 'y', 'ARRAY[1, a, b]')")
    assert session.execute("SELECT num_rows_processed FROM out").fetchone() == (80,)
    with pytest.raises(StatementError, match="no_such"):
        session.execute("SELECT madlib.linregr_train('pond', 'other', 'y', 'ARRAY[1, no_such]')")
    with pytest.raises(StatementError, match="ROLLBACK"):
        session.execute("SELECT 1")
    session.execute("COMMIT")  # of what has failed, as in PostgreSQL, nothing stays
    assert not {"out", "pond", "other"} & tables(session)


def test_mistakes_name_line_column_and_the_way_out(session):
    with pytest.raises(StatementError, match="Did you mean 'price'") as caught:
        session.execute(
            "CREATE TABLE shop AS SELECT 1 AS price;\n\n  SELECT\n    madlib.linregr_train('shop', 'out', 'prise', 'ARRAY[1]')"
        )
    assert (caught.value.line, caught.value.column) == (4, 12)
    assert caught.value.picture.splitlines()[1:] == [
        "    madlib.linregr_train('shop', 'out', 'prise', 'ARRAY[1]')",
        "           ^",
    ]
    with pytest.raises(StatementError, match=r"Did you mean madlib\.linregr_train") as caught:
        session.execute("SELECT 1; SELECT madlib.linreg_train('a')")
    assert (caught.value.line, caught.value.column) == (1, 25)
    with pytest.raises(StatementError, match="Names of tables and columns are written as texts"):
        session.execute("SELECT madlib.linregr_train(fish, 'out', 'y', 'ARRAY[1]') FROM fish")
    with pytest.raises(StatementError, match="max_iter=0 is not possible"):
        session.execute("SELECT madlib.logregr_train('fish', 'out', 'c', 'ARRAY[1, a]', NULL, 0)")
    with pytest.raises(StatementError, match="There is no table pond"):
        session.execute("SELECT madlib.summary('pond', 'out')")


@pytest.mark.parametrize(
    ("script", "line", "column"),
    [
        ("SELECT 1;\n SELECT 2 +;\n", 2, None),
        ("SELECT 1;\n\n  SELECT id,\n    nothing FROM fish;", 4, 5),
        ("SELECT id FROM fish; SELECT 7 FRM fish x y", 1, None),
        ("CREATE TABLE other (a FLOAT;", 1, None),
    ],
)
def test_mistakes_of_plain_sql_are_placed_too(anywhere, script, line, column):
    with pytest.raises(StatementError) as caught:
        anywhere.execute(script)
    assert caught.value.line == line
    assert column in (None, caught.value.column)
    assert "LINE" not in str(caught.value)
    assert anywhere.execute("SELECT 1").fetchone() == (1,)


def test_rows_with_nulls_are_left_out_and_counted_by_group(anywhere):
    anywhere.execute("UPDATE fish SET a = NULL WHERE id IN (2, 4, 5); UPDATE fish SET y = NULL WHERE id = 6")
    anywhere.execute("INSERT INTO fish SELECT id, NULL, b, y, c, 'empty' FROM fish WHERE id <= 3")
    anywhere.execute("SELECT madlib.linregr_train('fish', 'out', 'y', 'ARRAY[1, a, b]', 'g')")
    found = anywhere.execute(
        "SELECT g, num_rows_processed, num_missing_rows_skipped, coef FROM out ORDER BY g"
    ).fetchall()
    assert [row[:3] for row in found] == [("empty", 0, 3), ("even", 17, 3), ("odd", 19, 1)]
    assert found[0][3] is None
    assert found[1][3] == pytest.approx([1, 2, -3])
    summary = anywhere.execute(
        "SELECT num_rows_processed, num_missing_rows_skipped, grouping_cols FROM out_summary"
    ).fetchone()
    assert summary == (36, 7, "g")


def test_a_group_of_one_class_fails_alone(anywhere):
    anywhere.execute(
        "UPDATE fish SET c = TRUE WHERE g = 'odd'; INSERT INTO fish SELECT id, a, b, y, c, NULL FROM fish WHERE id % 2 = 0"
    )
    anywhere.execute("SELECT madlib.logregr_train('fish', 'out', 'c', 'ARRAY[1, a, b]', 'g')")
    found = anywhere.execute("SELECT g, coef IS NULL, num_rows_processed FROM out ORDER BY g NULLS LAST").fetchall()
    assert found == [("even", False, 20), ("odd", True, 0), (None, False, 20)]
    assert anywhere.execute("SELECT num_all_groups, num_failed_groups FROM out_summary").fetchone() == (3, 1)
    coefs = [row[0] for row in anywhere.execute("SELECT coef FROM out WHERE coef IS NOT NULL").fetchall()]
    assert coefs[0] == pytest.approx(coefs[1])  # the same rows, in a group of text and in that of NULL


def test_arrays_with_gaps_and_of_unequal_length(session):
    session.execute(
        "CREATE TABLE arrays AS SELECT id, ARRAY[1, a, b] AS x, y FROM fish; "
        "INSERT INTO arrays VALUES (41, '{1,NULL,3}', 1), (42, NULL, 2), (43, '{1,2,3}', NULL)"
    )
    session.execute("SELECT madlib.linregr_train('arrays', 'out', 'y', 'x')")
    coef, processed, skipped = session.execute(
        "SELECT coef, num_rows_processed, num_missing_rows_skipped FROM out"
    ).fetchone()
    assert (processed, skipped) == (40, 3)
    assert coef == pytest.approx([1, 2, -3])
    session.execute("INSERT INTO arrays VALUES (44, '{1,2}', 5)")
    with pytest.raises(StatementError, match="2 numbers where 3 are expected"):
        session.execute("SELECT madlib.linregr_train('arrays', 'other', 'y', 'x')")
    session.execute("UPDATE arrays SET x = ARRAY[1, 'NaN'::float8, 2] WHERE id = 44")
    with pytest.raises(StatementError, match="infinities or NaNs"):
        session.execute("SELECT madlib.linregr_train('arrays', 'other', 'y', 'x')")
    session.execute(
        "SELECT * FROM madlib.kmeans_random('arrays', 'x', 3)"
    )  # leaves out what is not finite, as documented
    assert len(session.fetchone()[0]) == 3
    predicted = session.execute(
        "SELECT id, madlib.linregr_predict(m.coef, x) FROM arrays, out m WHERE id IN (1, 41, 42) ORDER BY id"
    ).fetchall()
    assert predicted[0][1] == pytest.approx(0.0, abs=1e-9)  # 1 + 2 * 1 - 3 * 1
    assert predicted[1:] == [(41, None), (42, None)]
    with pytest.raises(StatementError, match="dimensions must be equal"):
        session.execute("SELECT madlib.linregr_predict(ARRAY[1, 2], ARRAY[1, 2, 3])")


def test_no_rows_are_an_error_that_counts_them(anywhere):
    anywhere.execute("CREATE TABLE dry AS SELECT * FROM fish WHERE FALSE")
    for call in ("linregr_train('dry', 'out', 'y', 'ARRAY[1, a]')", "kmeanspp('dry', 'ARRAY[a]', 1)"):
        with pytest.raises(StatementError, match="no row to learn from: 0 rows"):
            anywhere.execute(f"SELECT madlib.{call}")
    with pytest.raises(StatementError, match="True in every row"):
        anywhere.execute("SELECT madlib.logregr_train('fish', 'out', 'id > 0', 'ARRAY[1, a]')")
    with pytest.raises(StatementError, match="fewer than the 50 clusters"):
        anywhere.execute("SELECT * FROM madlib.kmeanspp('fish', 'ARRAY[a, b]', 50)")


def test_models_are_those_of_the_python_interface():
    random = np.random.default_rng(4)
    x = random.normal(size=(3000, 4)) * [1, 10, 100, 0.1] + [0, 5, 1000, 0]
    y = x @ [1.0, -0.5, 0.02, 3.0] + 7 + random.normal(size=3000)
    late = random.random(3000) < 1 / (1 + np.exp(-(x[:, 0] - x[:, 3] * 5)))
    with connect() as session:
        rows = pa.table({f"x{j}": x[:, j] for j in range(4)} | {"y": y, "late": late})
        session.place.connection.register("given", rows)
        session.execute("CREATE TABLE t AS SELECT * FROM given")
        session.execute("SELECT madlib.linregr_train('t', 'linear', 'y', 'ARRAY[x0, x1, 2, x2, x3]')")
        session.execute("SELECT madlib.logregr_train('t', 'logistic', 'late', 'ARRAY[x0, x1, x2, 1, x3]')")
        session.execute("SELECT madlib.logregr_train('t', 'cg', 'late', 'ARRAY[x0, x1, x2, 1, x3]', NULL, 200, 'cg')")
        session.execute("SELECT madlib.linregr_train('t', 'through_zero', 'y', 'ARRAY[x0, x1, x2, x3]', NULL, TRUE)")
        linear = session.execute("SELECT coef, std_err, r2 FROM linear").fetchone()
        logistic, newton = (
            session.execute(f"SELECT coef, std_err FROM {name}").fetchone() for name in ("cg", "logistic")
        )
        zero = session.execute("SELECT coef, std_err, bp_p_value FROM through_zero").fetchone()
    ours = LinearRegression().fit(x, y)
    slopes, errors = np.delete(linear[0], 2), np.delete(linear[1], 2)
    assert slopes == pytest.approx(ours.coef_, rel=1e-10)
    assert errors == pytest.approx(ours.standard_errors_, rel=1e-9)
    assert 2 * linear[0][2] == pytest.approx(ours.intercept_, rel=1e-9)
    assert linear[2] == pytest.approx(ours.r2_)
    same = LogisticRegression(tol=1e-9).fit(x, late)
    for found in (logistic, newton):
        assert np.delete(found[0], 3) == pytest.approx(same.coef_[0], rel=1e-4)
        assert np.delete(found[1], 3) == pytest.approx(same.standard_errors_[0], rel=1e-3)
    flat = LinearRegression(fit_intercept=False).fit(x, y)
    assert zero[0] == pytest.approx(flat.coef_, rel=1e-9)
    assert zero[1] == pytest.approx(flat.standard_errors_, rel=1e-6)
    assert 0 <= zero[2] <= 1


@given(
    st.integers(1, 8).flatmap(lambda rows: st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=rows, max_size=rows))
)
@profile(max_examples=25)
def test_least_squares_are_those_of_numpy_whatever_the_rank(rows):
    """With fewer rows than columns, or columns that others add up to, it is the shortest solution."""
    table = np.array(rows, np.float64)
    design, y = np.column_stack([table[:, 0], np.ones(len(rows)), table[:, 1]]), table[:, 2]
    with connect() as session:
        session.execute("CREATE TABLE t (a int, b int, y int)")
        session.execute(f"INSERT INTO t VALUES {', '.join(map(str, rows))}")
        session.execute("SELECT madlib.linregr_train('t', 'out', 'y', 'ARRAY[a, 1, b]')")
        coef, r2, condition = session.execute("SELECT coef, r2, condition_no FROM out").fetchone()
    wanted, _, rank, _ = np.linalg.lstsq(design, y, rcond=1e-9)
    assert coef == pytest.approx(wanted, abs=1e-7)
    assert (condition > 1e6) == (rank < 3)
    if np.ptp(y) > 0:
        assert r2 == pytest.approx(1 - np.sum((y - design @ wanted) ** 2) / np.sum((y - y.mean()) ** 2), abs=1e-7)


def test_the_spread_of_residuals_is_tested_as_statsmodels_does():
    from statsmodels.stats.diagnostic import het_breuschpagan

    random = np.random.default_rng(5)
    x = random.normal(size=500)
    y = x + np.exp(x / 2) * random.normal(size=500)
    design = np.column_stack([np.ones(500), x])
    fit = np.linalg.lstsq(design, y, rcond=None)[0]
    statistic, p_value, *_ = het_breuschpagan(y - design @ fit, design)
    with connect() as session:
        session.place.connection.register("given", pa.table({"x": x, "y": y, "g": np.arange(500) % 1}))
        session.execute("CREATE TABLE t AS SELECT * FROM given")
        session.execute("SELECT madlib.linregr_train('t', 'out', 'y', 'ARRAY[1, x]', 'g', TRUE)")
        assert session.execute("SELECT bp_stats, bp_p_value FROM out").fetchone() == pytest.approx((statistic, p_value))


def test_clusters_are_as_good_as_those_of_the_estimator():
    random = np.random.default_rng(6)
    x = np.concatenate([random.normal(size=(300, 2)) + at for at in ((0, 0), (9, 0), (0, 9), (9, 9))])
    with connect() as session:
        session.place.connection.register("given", pa.table({"a": x[:, 0], "b": x[:, 1]}))
        session.execute(
            "CREATE TABLE t AS SELECT * FROM given; CREATE TABLE r AS SELECT * FROM madlib.kmeanspp('t', 'ARRAY[a, b]', 4)"
        )
        total, variances = session.execute("SELECT objective_fn, cluster_variance FROM r").fetchone()
        rowwise = session.execute(
            "SELECT (madlib.closest_column(centroids, ARRAY[a, b])).column_id AS c, sum((madlib.closest_column(centroids, "
            "ARRAY[a, b])).distance) FROM t, r GROUP BY 1 ORDER BY 1"
        ).fetchall()
    assert total == pytest.approx(KMeans(4, n_init=3).fit(x).inertia_, rel=1e-6)
    assert [row[1] for row in rowwise] == pytest.approx(variances)


@pytest.mark.parametrize("distance", ["dist_norm1", "dist_norm2", "squared_dist_norm2", "dist_angle"])
def test_distances_of_rows_and_of_passes_agree(anywhere, distance):
    centroids = "ARRAY[[1, 1], [5, 2], [3.5, 9]]"
    found = anywhere.execute(
        f"SELECT madlib.simple_silhouette('fish', 'ARRAY[a, b + 1]', {centroids}, 'madlib.{distance}')"
    ).fetchone()
    rows = anywhere.execute("SELECT a, b + 1 FROM fish").fetchall()
    by_hand = []
    for row in rows:
        sql = [
            anywhere.execute(f"SELECT madlib.{distance}({quote_array(c)}, {quote_array(row)})").fetchone()[0]
            for c in ((1, 1), (5, 2), (3.5, 9))
        ]
        near, second = sorted(sql)[:2]
        by_hand.append((second - near) / second if second else 0.0)
    assert found[0] == pytest.approx(np.mean(by_hand))


def quote_array(values) -> str:
    return "ARRAY[" + ", ".join(repr(float(value)) for value in values) + "]"


def test_a_table_is_cut_exactly_and_every_row_is_in_one_part(anywhere):
    anywhere.execute("SELECT madlib.train_test_split('fish', 'parts', 0.7, 0.2, 'g', NULL, FALSE, TRUE)")
    train = {row[0] for row in anywhere.execute("SELECT id FROM parts_train").fetchall()}
    test = {row[0] for row in anywhere.execute("SELECT id FROM parts_test").fetchall()}
    assert (len(train), len(test), train & test) == (28, 8, set())
    assert anywhere.execute("SELECT g, count(*) FROM parts_train GROUP BY g ORDER BY g").fetchall() == [
        ("even", 14),
        ("odd", 14),
    ]
    assert not [name for name in tables(anywhere) if "braidwater" in name]


def test_buffers_of_nets_hold_every_row_once_as_it_was(anywhere):
    anywhere.execute(
        "CREATE TABLE images AS SELECT id, ARRAY[[id, a], [b, 255]] AS x, "
        "CASE WHEN id % 3 = 0 THEN NULL ELSE g END AS label FROM fish"
    )
    anywhere.execute("SELECT madlib.training_preprocessor_dl('images', 'packed', 'label', 'x', 16, 255, ARRAY[5])")
    rows = anywhere.execute(
        "SELECT x, x_shape, label, label_shape, buffer_id FROM packed ORDER BY buffer_id"
    ).fetchall()
    assert [row[1] for row in rows] == [[16, 2, 2], [16, 2, 2], [8, 2, 2]]
    x = np.concatenate([np.frombuffer(row[0], np.float32).reshape(row[1]) for row in rows])
    y = np.concatenate([np.frombuffer(row[2], np.int16).reshape(row[3]) for row in rows])
    ids = np.rint(x[:, 0, 0] * 255).astype(int)
    assert sorted(ids) == list(range(1, 41))
    assert list(ids) != list(range(1, 41))  # shuffled
    assert np.all(x[:, 1, 1] == 1.0)
    summary = anywhere.execute(
        "SELECT label_class_values, num_classes, normalizing_const FROM packed_summary"
    ).fetchone()
    assert summary == ([None, "even", "odd", None, None], [5], 255.0)
    classes = np.where(ids % 3 == 0, 0, np.where(ids % 2 == 0, 1, 2))
    assert np.array_equal(y, np.eye(5, dtype=np.int16)[classes])
    anywhere.execute("SELECT madlib.validation_preprocessor_dl('images', 'checked', 'label', 'x', 'packed')")
    data, shape = anywhere.execute("SELECT x, x_shape FROM checked").fetchone()
    assert list(np.rint(np.frombuffer(data, np.float32).reshape(shape)[:, 0, 0] * 255)) == list(range(1, 41))


def test_every_function_explains_itself(session):
    for name in (*FUNCTIONS, *(one.name for one in SCALARS)):
        text = session.execute(f"SELECT madlib.{name}()").fetchone()[0]
        assert f"madlib.{name}(" in text
        assert session.execute(f"SELECT * FROM madlib.{name}('usage')").fetchone()[0] == text
        for one in FUNCTIONS.get(name, []):
            assert all(parameter.about for parameter in one.parameters), name


def test_the_page_has_the_reference_of_these_functions():
    page = (Path(__file__).parent.parent / "docs" / "sql.md").read_text()
    assert filled(page) == page, "run python -m braidwater.sql.reference docs/sql.md"


def test_a_file_keeps_models_and_nothing_else(tmp_path):
    path = str(tmp_path / "lake.duckdb")
    with connect(path) as session:
        session.execute("CREATE TABLE t AS SELECT i AS x, 2 * i AS y FROM generate_series(1, 9) AS s(i)")
        session.execute("SELECT madlib.linregr_train('t', 'out', 'y', 'ARRAY[1, x]')")
    import duckdb

    with duckdb.connect(path) as plain:
        assert {row[0] for row in plain.execute("SELECT table_name FROM duckdb_tables()").fetchall()} == {
            "t",
            "out",
            "out_summary",
        }
        assert plain.execute(
            "SELECT count(*) FROM duckdb_functions() WHERE function_name = 'linregr_predict'"
        ).fetchone() == (0,)


def test_statements_of_duckdb_and_of_postgresql_are_both_taken(session):
    assert session.execute("FROM secrets").fetchall() == [(42,)]
    assert session.execute("SELECT 7 / 2, [x * 2 for x in [1, 2]]").fetchall() == [(3, [2, 4])]
    assert session.execute("SELECT '{1,2}'::int[], $$it's$$, E'a\\tb'").fetchall() == [([1, 2], "it's", "a\tb")]
    session.execute(
        "CREATE TABLE s (id serial, v numeric, f float); INSERT INTO s (v, f) VALUES (0.00001, 0.1), (2, 3)"
    )
    assert session.execute("SELECT * FROM s").fetchall() == [(1, 1e-05, 0.1), (2, 2.0, 3.0)]
    assert session.execute("DROP TABLE IF EXISTS s, no_such").columns in ([], ["Success"], ["Count"])


def test_scripts_are_cut_at_their_semicolons():
    script = "-- a;b\nSELECT ';' ; SELECT $q$;$$;$q$, \";\" /* ; */;\n\\x on\nSELECT E'\\';' "
    found = [(one.text, one.line, one.ended) for one in statements(script)]
    assert found == [
        ("SELECT ';'", 2, True),
        ('SELECT $q$;$$;$q$, ";" /* ; */', 2, True),
        ("\\x on", 3, True),
        ("SELECT E'\\';'", 4, False),
    ]
    assert [is_open(text) for text in ("SELECT '", "SELECT 1;", "  -- nothing")] == [True, False, False]


def test_infinite_and_missing_figures_survive_a_table(session):
    session.execute("SELECT madlib.linregr_train('secrets', 'out', 'x', 'ARRAY[1]')")
    assert session.execute("SELECT coef, t_stats, p_values FROM out").fetchone() == ([42.0], [math.inf], None)


def test_categories_are_predicted_with_probabilities_that_add_up(anywhere):
    anywhere.execute(
        "CREATE TABLE sorts AS SELECT id, a, b, CASE WHEN a + 9 * sin(id) > 4 THEN 2 "
        "WHEN b + 9 * cos(id * 7) > 4 THEN 1 ELSE 0 END AS kind FROM fish"
    )
    anywhere.execute("SELECT madlib.mlogregr_train('sorts', 'out', 'kind', 'ARRAY[a, 1, b]', 1)")
    anywhere.execute("SELECT madlib.mlogregr_predict('out', 'sorts', 'id', 'likely')")
    anywhere.execute("SELECT madlib.mlogregr_predict('out', 'sorts', 'id', 'chances', 'prob')")
    rows = anywhere.execute("SELECT a, b, kind FROM sorts ORDER BY id").fetchall()
    likely = [row[0] for row in anywhere.execute("SELECT category FROM likely ORDER BY id").fetchall()]
    chances = np.array(
        anywhere.execute(
            "SELECT estimated_prob_0, estimated_prob_1, estimated_prob_2 FROM chances ORDER BY id"
        ).fetchall()
    )
    ours = LogisticRegression(tol=1e-8).fit(np.array([row[:2] for row in rows]), [row[2] for row in rows])
    assert chances == pytest.approx(ours.predict_proba(np.array([row[:2] for row in rows])), abs=2e-3)
    assert likely == chances.argmax(axis=1).tolist()
    assert chances.sum(axis=1) == pytest.approx(np.ones(40))


def test_arguments_may_be_named(session):
    session.execute(
        "SELECT madlib.linregr_train('fish', out_table => 'out', dependent_varname := 'y', "
        "independent_varname => 'ARRAY[1, a, b]', grouping_cols => 'g')"
    )
    assert session.execute("SELECT count(*) FROM out").fetchone() == (2,)
    with pytest.raises(StatementError, match="did you mean out_table"):
        session.execute("SELECT madlib.linregr_train('fish', out_tabel => 'out')")
    with pytest.raises(StatementError, match="given once"):
        session.execute("SELECT madlib.linregr_train('fish', source_table => 'fish')")


def test_a_session_on_a_connection_of_yours_leaves_it_as_it_was():
    import duckdb

    with duckdb.connect() as yours:
        yours.execute("CREATE TABLE t AS SELECT i AS x, i * 2 AS y FROM range(9) AS r(i)")
        with connect(yours) as session:
            session.execute("SELECT madlib.linregr_train('t', 'out', 'y', 'ARRAY[1, x]')")
            assert session.execute("SELECT 7 / 2").fetchone() == (3,)
        assert yours.execute("SELECT 7 / 2, coef FROM out").fetchone() == (3.5, pytest.approx([0, 2], abs=1e-9))


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_whole_models_only(tmp_path):
    import duckdb

    path = str(tmp_path / "lake.duckdb")
    with duckdb.connect(path) as plain:
        plain.execute("CREATE TABLE t AS SELECT random() AS x, random() AS y FROM range(1000000)")
    code = f"import braidwater.sql\nsession = braidwater.sql.connect({path!r})\nfor number in range(999):\n    "
    code += "session.execute(f\"SELECT madlib.logregr_train('t', 'm{number}', 'y > 0.5', 'ARRAY[1, x]')\")\n    print(flush=True)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(2):
            process.stdout.readline()
        time.sleep(0.2)  # into the third
        process.kill()
    with duckdb.connect(path) as plain:
        names = {row[0] for row in plain.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    models = {name for name in names if name.startswith("m") and not name.endswith("_summary")}
    assert len(models) >= 2
    assert names == {"t", *models, *(f"{name}_summary" for name in models)}


@pytest.mark.parametrize("constant", [None, (0, 1.0), (2, -3.0)])
def test_least_squares_of_a_stack_is_the_shortest_solution_of_every_group(constant):
    random = np.random.default_rng(5)
    kinds = {"regular": 30, "two columns agree": 30, "a column is constant": 30, "fewer rows than columns": 3}
    rows, means, products, sides = [], [], [], []
    for kind, count in kinds.items():
        table = random.normal([2.0, -1.0, 0.5, 3.0], size=(count, 4))
        if kind == "two columns agree":
            table[:, 1] = 2 * table[:, 0]
        if kind == "a column is constant":
            table[:, 1] = 4.0
        mean = table.mean(axis=0)
        rows.append(count)
        means.append(mean)
        products.append((table - mean).T @ (table - mean))
        X = table[:, :3] if constant is None else np.insert(table[:, :3], constant[0], constant[1], axis=1)
        sides.append((X, table[:, 3]))
    found = least_squares(np.array(rows, float), np.array(means), np.array(products), constant)
    for place, (X, y) in enumerate(sides):
        expected = np.linalg.lstsq(X, y, rcond=1e-9)[0]
        np.testing.assert_allclose(found.coef[place], expected, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(found.inverse[place], np.linalg.pinv(X.T @ X, rcond=1e-10), rtol=1e-6, atol=1e-8)
        total = np.sum((y - y.mean()) ** 2)
        np.testing.assert_allclose(found.total[place], total)
        residual = total - np.sum((y - X @ expected) ** 2)
        np.testing.assert_allclose(found.explained[place], residual, rtol=1e-6, atol=1e-8 * np.sum(y**2))
        singular = np.linalg.matrix_rank(X) < X.shape[1]
        assert np.isinf(found.condition[place]) == singular
        if not singular:
            np.testing.assert_allclose(found.condition[place], np.linalg.cond(X), rtol=1e-7)
