"""``braidwater sql``: what is printed, exit codes, and the shell."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from braidwater.cli import sql as shell
from braidwater.cli.app import app

TABLE = "CREATE TABLE t AS SELECT i AS x, 3 * i - 1 AS y FROM generate_series(1, 10) AS s(i);"
TRAIN = "SELECT madlib.linregr_train('t', 'out', 'y', 'ARRAY[1, x]');"


def run(*arguments: str, text: str | None = None):
    return CliRunner().invoke(app, ["sql", *arguments], input=text)


def test_a_script_prints_its_answers_and_nothing_for_what_has_none(tmp_path):
    script = tmp_path / "model.sql"
    script.write_text(
        f"-- a model\n{TABLE}\n{TRAIN}\n\\x on\nSELECT coef, num_rows_processed FROM out;\n\\x off\nSELECT 7 AS seven;\n"
    )
    done = run(str(script))
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].startswith("-[ RECORD 1 ]")
    assert lines[2] == "num_rows_processed | 10"
    assert [line.strip() for line in lines[3:]] == ["seven", "7", "(1 row)"]


def test_json_and_csv_are_for_programs(tmp_path):
    database = str(tmp_path / "lake.duckdb")
    assert run("--database", database, "-c", TABLE + TRAIN, "--json").exit_code == 0
    done = run(
        "--database",
        database,
        "--json",
        "-c",
        "SELECT x, [y, NULL] AS pair, 'a''b' AS s, 'NaN'::float8 AS n FROM t WHERE x < 3",
    )
    assert [json.loads(line) for line in done.output.splitlines()] == [
        {"x": 1, "pair": [2, None], "s": "a'b", "n": None},
        {"x": 2, "pair": [5, None], "s": "a'b", "n": None},
    ]
    done = run(
        "--database", database, "--csv", "-c", "SELECT x, NULL AS nothing, 'a,b' AS s, y > 2 AS more FROM t LIMIT 1"
    )
    assert done.output == 'x,nothing,s,more\n1,,"a,b",f\n'


def test_a_mistake_ends_the_script_and_shows_its_place():
    done = run(text="SELECT 1 AS one;\n\nSELECT madlib.linregr_train('t', 'out',\n  'y');\nSELECT 2 AS two;")
    assert done.exit_code == 1
    assert "two" not in done.output
    shown = done.stderr.splitlines()
    assert shown[0].startswith("Error: standard input: line 3, column 15: independent_varname=None is not possible")
    assert shown[1:3] == ["SELECT madlib.linregr_train('t', 'out',", "              ^"]
    assert run("no such file.sql").exit_code == 1
    assert run("-c", "\\nonsense").exit_code == 1


def test_the_shell_collects_lines_and_goes_on_after_mistakes(monkeypatch, capsys, tmp_path):
    typed = iter([TABLE[:18], TABLE[18:], "SELECT madlib.linregr_trane();", TRAIN, "SELECT count(*) AS models", "FROM out;",
                  "\\d", "\\d out", "\\df", "\\?", "\\q"])  # fmt: skip
    prompts = []

    def answer(prompt: str) -> str:
        prompts.append(prompt)
        return next(typed)

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr(shell, "HISTORY", tmp_path / "history")
    with shell.connect(":memory:") as session:
        shell.Shell(session, None).interact()
    printed, mistakes = capsys.readouterr()
    assert prompts[:3] == ["braidwater> ", "......... > ", "braidwater> "]
    assert "Did you mean madlib.linregr_train?" in mistakes
    assert "models" in printed
    assert "out_summary" in printed
    assert "float8[][]" in printed
    assert "madlib.kmeanspp(" in printed


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_the_command_is_listed(option):
    assert "MADlib" in run(option).output
