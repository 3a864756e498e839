"""Statements that run again without being read again: the same values, kinds, digits and errors as statement by statement."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy import sparse

from braidwater import dml
from braidwater.dml.explain import Explanation, Statistics
from braidwater.dml.interpreter import replay
from braidwater.dml.interpreter.interpreter import Interpreter
from braidwater.dml.runtime import rooms
from braidwater.dml.runtime.pool import Scratch
from braidwater.dml.syntax.nodes import Statement
from braidwater.errors import DMLError

RNG = np.random.default_rng(3)
INPUTS = {"A": RNG.normal(size=(6, 4)), "B": RNG.normal(size=(6, 4)), "v": RNG.normal(size=(6, 1)), "a": 0.75, "k": 3,
          "flag": True, "S": sparse.random_array((200, 100), density=0.02, rng=RNG, format="csr")}  # fmt: skip


@pytest.fixture(autouse=True)
def _scratch_memory_is_spoilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices of all sizes use memory again, and what is given back is NaN at once: whoever still reads it shows."""
    give = Scratch.give

    def spoilt(self: Scratch, *arrays: Any) -> None:
        for array in arrays:
            array.fill(np.nan)
        give(self, *arrays)

    monkeypatch.setattr(Scratch, "give", spoilt)
    monkeypatch.setattr(rooms, "BORROWED", 0)


MATRICES = [
    "A + B", "A * a", "A - v", "A * (B > a)", "exp(-(A ^ 2))", "A %*% (t(B) %*% B)", "ifelse(A > 0, A, B)", "pmin(A, B)", "-B",
    "A / (1 + rowSums(abs(A)))", "t(t(A) * 2 - 1)", "round(A * k)", "matrix(a, nrow(A), ncol(B))", "A[, 1:4] + k",
    "1 - (A + B) * v",
    "A * rowMins(B) - rowMaxs(A)", "(A > 0) - (A < 0)", "B", "A ^ 2 + B ^ 2", "max(A, a)", "B * sum(S %*% matrix(a, 100, 1))",
    "matrix(A, 6, 4) + colSums(B)", "t(matrix(t(A), 4, 6))",
]  # fmt: skip
NUMBERS = [
    "sum(A * B) / 100", "a * 0.5", "a / k", "sqrt(abs(a))", "max(a, 1)", "sum(A ^ 2) / (k + 1)", "as.scalar(A[1, 1])", "mean(A)",
    "a - sum(v)", "min(A)", "1 / (a - a)", "-a", "a ^ 2", "k ^ 2 / 7", "sum(S * a)", "a %% 0.3", "abs(a)", "k", "k * 1.0",
]  # fmt: skip
WHOLE = ["k + 1", "k * 2 - 1", "k %% 5", "k %/% 2", "nrow(A) + k", "ncol(B)", "0 - k"]
TRUTHS = ["a > k", "(k %% 2 == 0) & flag", "sum(A) > 0", "flag | (a < 0.5)", "k == 3", "flag"]


VECTORS = ["rowSums(A)", "v * a", "A %*% t(colSums(B))", "B[, 2]"]
OTHERS = ["A[2, 3] = a", "B[1, ] = B[2, ] * 2", "S = S * 0.5"]
CONDITIONS = ["k %% 2 == 0", "flag", "a > 0.5", "sum(A) > sum(B)", "i == 2"]
OUTPUTS = ["A", "B", "v", "a", "k", "flag"]


def statement(rng: np.random.Generator, depth: int = 1) -> str:
    """An assignment of any kind, or a branch of them."""
    if depth and rng.random() < 0.2:
        yes, no = ("\n".join(statement(rng, 0) for _ in range(2)) for _ in range(2))
        return f"if ({rng.choice(CONDITIONS)}) {{\n{yes}\n}} else {{\n{no}\n}}"
    targets = {"A": MATRICES, "B": MATRICES, "v": VECTORS, "a": NUMBERS, "k": WHOLE, "flag": TRUTHS, "": OTHERS}
    target = str(rng.choice(list(targets)))
    value = str(rng.choice(targets[target]))
    return f"{target} = {value}" if target else value


def check_against_statements_one_by_one(script: str, outputs: list[str]) -> None:
    expected = dml.run(script, INPUTS, outputs, plain=True)
    prepared = dml.compile(script, outputs)
    for results in (prepared(INPUTS), prepared(INPUTS), dml.run(script, INPUTS, outputs, statistics=Statistics())):
        for name in outputs:
            assert type(results[name]) is type(expected[name]), (name, script)
            np.testing.assert_allclose(results[name], expected[name], rtol=1e-6, atol=1e-9, err_msg=f"{name}\n{script}")


@pytest.mark.parametrize("value", [*MATRICES, *VECTORS, *NUMBERS, *WHOLE, *TRUTHS])
def test_an_expression_gives_the_same_in_every_turn(value: str) -> None:
    changes = ["A = A * 0.9 - 0.05", "B = -B * 0.8", "k = k + 1", "a = a / 3 - k", "flag = !flag", "v = 1 - v"]
    script = "\n".join(["for (i in 1:4) {", f"T = {value}", *changes, "}"])
    check_against_statements_one_by_one(script, ["T", *OUTPUTS])


def test_a_loop_gives_what_its_statements_give_one_by_one() -> None:
    reset = ["A = A / (1 + max(abs(A)))", "B = B / (1 + max(abs(B)))", "k = k %% 11"]
    for seed in range(120):
        rng = np.random.default_rng(seed)
        body = [statement(rng) for _ in range(rng.integers(2, 8))]
        script = "\n".join(["for (i in 1:5) {", *body, *reset[: rng.integers(1, 4)], "}"])
        check_against_statements_one_by_one(script, OUTPUTS)


LOOP = """
w = matrix(0, ncol(X), 1)
k = 0
error = 1.0
while (error > 1e-9 & k < 12) {
  gap = X %*% w - y
  g = t(X) %*% gap
  if (k %% 3 == 2) { g = g * 0.5 }
  before = w
  w = w - 0.002 * g
  error = sum((w - before) ^ 2)
  k = k + 1
}
"""


def loop_inputs(rows: int = 300, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"X": rng.normal(size=(rows, 8)), "y": rng.normal(size=(rows, 1))}


def interpreted(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """Counts, by line, the statements that the interpreter itself runs."""
    lines: Counter[int] = Counter()
    one_by_one = Interpreter.run_statement

    def counted(self: Interpreter, statement: Statement, scope: Any) -> None:
        if isinstance(self.replays, replay.Replays):
            lines[statement.span.line] += 1
        one_by_one(self, statement, scope)

    monkeypatch.setattr(Interpreter, "run_statement", counted)
    return lines


def test_the_interpreter_does_not_run_what_was_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = interpreted(monkeypatch)
    assert dml.run(LOOP, loop_inputs())["k"] == 12
    assert lines == {5: 1}  # the loop itself: what stands in it was recorded before it ran the first time


def test_a_loop_over_ever_other_sizes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = interpreted(monkeypatch)
    script = "Z = X\nfor (i in 1:60) {\nZ = rbind(Z, y)\ns = sum(Z)\n}"
    results = dml.run(script, {"X": np.ones((20, 1)), "y": np.ones((1, 1))})
    assert results["s"] == 80
    assert lines[3] == 60 - replay.MOST


def test_digits_are_the_same_in_every_run_and_when_it_is_measured() -> None:
    inputs = loop_inputs()
    prepared = dml.compile(LOOP, ["w", "error"])
    first = prepared(inputs)
    for results in (prepared(inputs), prepared(inputs), dml.run(LOOP, inputs, ["w", "error"], statistics=Statistics())):
        assert results["error"] == first["error"]
        assert results["w"].tobytes() == first["w"].tobytes()


@pytest.mark.parametrize("order", ["C", "F"])
def test_digits_do_not_depend_on_whether_a_turn_was_recorded_before(
    order: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A matrix that lies column by column is summed in another order, and what is made of it must not change that."""
    monkeypatch.setattr(rooms, "BORROWED", 1 << 30)  # numpy decides how cells lie, unless it is told
    script = "for (i in 1:3) { E = exp(X) * 2\ns = sum(E)\nd = sum(E * X)\nq = sum(X * X)\nr = sum(rowSums(E) + v) }"
    inputs = {"X": np.array(RNG.normal(size=(97, 31)), order=order), "v": RNG.normal(size=(97, 5))[:, 2:3]}
    one, three = (dml.run(script.replace("1:3", turns), inputs) for turns in ("1:1", "1:3"))
    assert [one[name] for name in "sdqr"] == [three[name] for name in "sdqr"]


def test_results_of_an_earlier_run_do_not_change() -> None:
    """Memory that is used again in the next turn must not be what a variable holds, nor a view of it."""
    script = """for (i in 1:4) {
      G = exp(X * 0.1)
      T = t(G + 1)
      R = matrix(G * 2, ncol(X), nrow(X))
      H = G
      last = rowSums(G * X)
      if (i == 2) { kept = T; reshaped = R; same = H }
      X = X + 0.01
    }"""
    names = ["kept", "reshaped", "same", "last"]
    prepared = dml.compile(script, names)
    X = RNG.normal(size=(30, 20))
    results = [prepared({"X": X + shift}) for shift in (0.0, 1.0, 0.0)]
    for name in names:
        assert results[0][name].tobytes() == results[2][name].tobytes(), name
        np.testing.assert_allclose(results[0][name], dml.run(script, {"X": X}, names, plain=True)[name], rtol=1e-12)


def test_values_are_as_if_copied() -> None:
    script = "for (i in 1:5) {\nC = A\nA = A + 1\nA[1, 1] = i\nD = C\nC[2, 2] = sum(D)\n}"
    given = np.arange(24.0).reshape(6, 4)
    before = given.copy()
    results, expected = (dml.run(script, {"A": given}, ["A", "C", "D"], plain=plain) for plain in (False, True))
    for name in ("A", "C", "D"):
        np.testing.assert_array_equal(results[name], expected[name])
    np.testing.assert_array_equal(given, before)


def test_whole_numbers_stay_exact() -> None:
    script = "x = 12345\nfor (i in 1:9) { x = (x * 1103515245 + 12345) - 2147483648 * ((x * 1103515245 + 12345) %/% 2147483648) }"
    x = 12345
    for _ in range(9):
        x = (x * 1103515245 + 12345) % 2147483648
    assert dml.run(script, {}, ["x"], plain=True)["x"] == x
    assert dml.run(script, {}, ["x"])["x"] == x


def test_kinds_that_change_are_noticed() -> None:
    """Sizes, formats and kinds that differ in one turn only."""
    script = """for (i in 1:6) {
      s = sum(A) + n
      M = A * n
      if (i == 3) { A = B }
      if (i == 4) { n = 0.5 }
      if (i == 5) { A = C }
    }"""
    inputs = {"A": np.ones((9, 3)), "B": np.ones((4, 5)), "C": sparse.eye_array(200, format="csr"), "n": 2}
    results, expected = (dml.run(script, inputs, ["s", "M"], plain=plain) for plain in (False, True))
    assert results["s"] == expected["s"] == 200.5
    np.testing.assert_array_equal(results["M"].toarray(), expected["M"].toarray())


@pytest.mark.parametrize(
    "body",
    [
        "G = (A > 0) * 2\ns = sum(G)\nA = rbind(A, B)",  # other sizes each turn
        "G = (A > 0) * A\ns = sum(G)\nold = A\nA = C\nC = old",  # other formats
        "A = t(A)\nG = exp(A - 1)\ns = sum(G)",  # other orders of cells
        "n = n / 2\ns = n %/% 3\nm = n * 3",  # a whole number, then doubles
        "G = ifelse(A - 0.5, A, -A)\ns = sum(G)\nA = A * 0.9",
    ],
)
def test_turns_without_branches_notice_too(body: str) -> None:
    A = RNG.normal(size=(150, 120))
    inputs = {"A": A, "B": A[:20], "C": sparse.random_array((150, 120), density=0.1, rng=RNG, format="csr"), "n": 48}
    script = f"s = 0\nfor (i in 1:6) {{\n{body}\n}}"
    results, expected = (dml.run(script, inputs, plain=plain) for plain in (False, True))
    for name in results:
        assert type(results[name]) is type(expected[name]), name
        if not sparse.issparse(expected[name]):
            np.testing.assert_allclose(results[name], expected[name], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("turn", [1, 4])
@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("Z = X %*% Y", "A 6 x 5 matrix cannot be multiplied by a 4 x 3 one"),
        ("Z = solve(Y[1:3, ] * (TURN - i), Y[1:3, ])", "singular"),
        ("Z = Y[i:(i + 4 - TURN), ] + missing", "There is no variable 'missing'"),
    ],
)
def test_errors_are_those_of_the_statements(statement: str, says: str, turn: int) -> None:
    first = "if (i == TURN) { X = W }" if "X" in statement else "Y[1, 1] = Y[1, 1]"
    lines = ["for (i in 1:6) {", first, "s = sum(X)", statement, "}"]
    script = "\n".join(lines).replace("TURN", str(turn))
    inputs = {"X": np.ones((6, 4)), "W": np.ones((6, 5)), "Y": np.vander(np.arange(1.0, 5), 3)}
    messages = []
    for plain in (True, False):
        with pytest.raises(DMLError, match=re.escape(says)) as caught:
            dml.run(script, inputs, plain=plain)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "script:4:" in messages[1]


def test_a_zero_counts_nothing_opposite_to_nan() -> None:
    """The rule for products, also where a product of ever other values is run again."""
    script = "for (i in 1:4) {\nif (i == 3) { B = N }\nP = Z %*% B\nQ = t(Z) %*% B\nR = Z %*% t(t(B))\n}"
    Z = np.diag([0.0, 1, 2, 3, 4])
    N = np.ones((5, 5))
    N[0, :] = np.nan
    results = dml.run(script, {"Z": Z, "B": np.ones((5, 5)), "N": N})
    for name in "PQR":
        np.testing.assert_array_equal(results[name], Z @ np.ones((5, 5)), err_msg=name)


def test_what_nobody_reads_again_is_let_go() -> None:
    class Watched(replay.Replays):
        held: ClassVar[list[set[str]]] = []

        def run(self, statements: Any, place: int, scope: Any) -> int:
            done = super().run(statements, place, scope)
            self.held.append(set(scope.variables))
            return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("braidwater.dml.interpreter.interpreter.Replays", Watched)
        script = "B = A * 2\nfor (i in 1:3) { s = sum(B)\nB = B + s }\nt = sum(B)\nfor (i in 1:2) { t = t + 1 }"
        dml.run(script, {"A": np.ones((10, 10))}, ["t"])
    assert "A" not in Watched.held[1]
    assert Watched.held[-1] <= {"t", "i"}


def test_measuring_and_explaining_tell_of_every_turn() -> None:
    statistics, explanation = Statistics(), Explanation("runtime")
    dml.run("for (i in 1:7) { X = sqrt(X + 2) }", {"X": np.ones((30, 30))}, statistics=statistics, explain=explanation)
    assert re.search(r"sqrt\(X \+ 2\) .* 7$", statistics.text, re.MULTILINE)
    assert "sqrt" in explanation.text
    assert len(explanation.programs) == 1
