"""Whole programs against numpy and scikit-learn, and what holds of any program."""

from __future__ import annotations

import resource

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from braidwater import dml
from braidwater.errors import DMLError, DMLNameError, DMLValueError

numbers = np.random.default_rng(5)
X = numbers.normal(size=(200, 4)) * [1, 10, 0.1, 3] + [0, 5, -1, 2]
y = X @ [1.0, -0.2, 7.0, 0.5] + 3 + numbers.normal(size=200) * 0.1

ALS = """
# one factor after the other, each by conjugate gradients on its normal equations
U = L0; V = R0
for (turn in 1:turns) {
  for (side in 1:2) {
    if (side == 1) { A = X; M = W; F = V; B = U } else { A = t(X); M = t(W); F = U; B = V }
    G = (M * (B %*% t(F) - A)) %*% F + lambda * B
    P = -G
    norm = sum(G ^ 2)
    step = 0
    while (step < 3 & norm > 1e-20) {
      HP = (M * (P %*% t(F))) %*% F + lambda * P
      alpha = norm / sum(P * HP)
      B = B + alpha * P
      G = G + alpha * HP
      old = norm
      norm = sum(G ^ 2)
      P = -G + (norm / old) * P
      step = step + 1
    }
    if (side == 1) U = B else V = B
  }
}
loss = sum(W * (X - U %*% t(V)) ^ 2) + lambda * (sum(U ^ 2) + sum(V ^ 2))
"""

LOGISTIC = """
newton = function(matrix[double] X, matrix[double] y, int turns = 12) return (matrix[double] w) {
  X = cbind(X, matrix(1, nrow(X), 1))
  w = matrix(0, ncol(X), 1)
  for (i in 1:turns) {
    p = 1 / (1 + exp(-(X %*% w)))
    w = w + solve(t(X) %*% ((p * (1 - p)) * X), t(X) %*% (y - p))
  }
}
w = newton(X, y)
"""

KMEANS = """
C = X[1:3, ]
for (i in 1:10) {
  D = -2 * (X %*% t(C)) + t(rowSums(C ^ 2))
  A = table(seq(1, nrow(X)), rowIndexMin(D), nrow(X), nrow(C))
  C = (t(A) %*% X) / t(colSums(A))
}
"""


def ridge(X, y, reg, icpt):
    if icpt == 0:
        return np.linalg.solve(X.T @ X + reg * np.eye(X.shape[1]), X.T @ y)
    ones = np.ones((len(X), 1))
    center, spread = (X.mean(axis=0), X.std(axis=0, ddof=1)) if icpt == 2 else (0, np.ones(X.shape[1]))
    Z = np.hstack([(X - center) / spread, ones])
    w = np.linalg.solve(Z.T @ Z + reg * np.diag([1.0] * X.shape[1] + [0.0]), Z.T @ y)
    slopes = w[:-1] / spread
    return np.append(slopes, w[-1] - center @ slopes if icpt == 2 else w[-1])


@pytest.mark.parametrize("icpt", [0, 1, 2])
@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("method", ["lmDS", "lmCG"])
def test_linear_regression_is_that_of_the_normal_equations(method, icpt, is_sparse):
    data = X * (np.abs(X) > 0.5)
    script = f"B = {method}(X=X, y=y, icpt={icpt}, reg=0.3, verbose=FALSE" + (
        ", tol=1e-13, maxi=60)" if method == "lmCG" else ")"
    )
    found = dml.run(script, {"X": sparse.csr_array(data) if is_sparse else data, "y": y}, ["B"])["B"]
    np.testing.assert_allclose(found[:, 0], ridge(data, y, 0.3, icpt), rtol=1e-6)


def test_scale_is_that_of_scikit_learn():
    from sklearn.preprocessing import StandardScaler

    data = np.hstack([X, np.ones((200, 1))])
    found = dml.run("[Y, c, s] = scale(X)", {"X": data}, ["Y", "c", "s"])
    expected = StandardScaler().fit_transform(data) * np.sqrt(199 / 200)
    np.testing.assert_allclose(found["Y"], expected, atol=1e-12)
    np.testing.assert_allclose(found["c"][0], data.mean(axis=0))


@pytest.mark.parametrize("density", [0.05, 1.0])
def test_als_by_conjugate_gradients_is_that_of_numpy(density):
    numbers = np.random.default_rng(2)
    mask = (numbers.random((60, 40)) < density).astype(float)
    ratings = mask * (numbers.random((60, 3)) @ numbers.random((3, 40)))
    left, right = numbers.random((60, 3)), numbers.random((40, 3))
    given = {
        "X": sparse.csr_array(ratings),
        "W": sparse.csr_array(mask),
        "L0": left,
        "R0": right,
        "lambda": 0.1,
        "turns": 4,
    }
    found = dml.run(ALS, given, ["U", "V", "loss"])
    U, V = als(ratings, mask, left, right, 0.1, 4)
    np.testing.assert_allclose(found["U"], U, rtol=1e-8)
    np.testing.assert_allclose(found["V"], V, rtol=1e-8)
    loss = (mask * (ratings - U @ V.T) ** 2).sum() + 0.1 * ((U**2).sum() + (V**2).sum())
    assert found["loss"] == pytest.approx(loss, rel=1e-9)


def als(X, W, U, V, penalty, turns):
    for _ in range(turns):
        U = half(X, W, U, V, penalty)
        V = half(X.T, W.T, V, U, penalty)
    return U, V


def half(A, M, B, F, penalty):
    G = (M * (B @ F.T - A)) @ F + penalty * B
    P, norm = -G, (G**2).sum()
    for _ in range(3):
        HP = (M * (P @ F.T)) @ F + penalty * P
        alpha = norm / (P * HP).sum()
        B, G = B + alpha * P, G + alpha * HP
        norm, old = (G**2).sum(), norm
        P = -G + norm / old * P
    return B


def test_logistic_regression_is_that_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    numbers = np.random.default_rng(8)
    label = (X @ [0.3, 0.1, 1.0, -0.2] + numbers.logistic(size=200) > 0).astype(float)
    found = dml.run(LOGISTIC, {"X": X, "y": label}, ["w"])["w"][:, 0]
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=5000).fit(X, label)
    np.testing.assert_allclose(found, np.append(reference.coef_[0], reference.intercept_), rtol=2e-3)


def test_k_means_is_that_of_numpy():
    centers = X[:3].copy()
    for _ in range(10):
        nearest = ((X[:, None] - centers) ** 2).sum(axis=2).argmin(axis=1)
        centers = np.array([X[nearest == k].mean(axis=0) for k in range(3)])
    np.testing.assert_allclose(dml.run(KMEANS, {"X": X}, ["C"])["C"], centers, rtol=1e-10)


SHAPES = "input_shape=[N, C, H, W], stride=[2, 1], padding=[1, 1]"
CONVOLUTION = f"""
N = nrow(X); C = 2; H = 5; W = 4; K = nrow(F)
Y = bias_add(conv2d(X, F, {SHAPES}, filter_shape=[K, C, 3, 2]), b)
dX = conv2d_backward_data(F, G, {SHAPES}, filter_shape=[K, C, 3, 2])
dF = conv2d_backward_filter(X, G, {SHAPES}, filter_shape=[K, C, 3, 2])
P = max_pool(X, {SHAPES}, pool_size=[2, 2])
A = avg_pool(X, {SHAPES}, pool_size=[2, 2])
dP = max_pool_backward(X, P, {SHAPES}, pool_size=[2, 2])
"""


def test_convolution_and_pooling_are_their_definitions_and_gradients():
    numbers = np.random.default_rng(4)
    images, filters, bias = -numbers.random((3, 40)), numbers.normal(size=(2, 12)), numbers.normal(size=(2, 1))
    outer = numbers.normal(size=(3, 2 * 3 * 5))
    found = dml.run(CONVOLUTION, {"X": images, "F": filters, "b": bias, "G": outer})
    np.testing.assert_allclose(found["Y"], convolved(images, filters) + np.repeat(bias[:, 0], 15), rtol=1e-12)
    step, place = 1e-6, (1, 7)
    for name, matrix, gradient in (("images", images, found["dX"]), ("filters", filters, found["dF"])):
        further = matrix.copy()
        further[place] += step
        moved = {"images": images, "filters": filters, name: further}
        slope = ((convolved(**moved) - convolved(images, filters)) * outer).sum() / step
        assert gradient[place] == pytest.approx(slope, rel=1e-5)
    np.testing.assert_array_equal(found["P"], pooled(images, -np.inf, np.max))
    np.testing.assert_allclose(found["A"], pooled(images, 0.0, np.mean), rtol=1e-12)
    assert found["dP"].sum() == pytest.approx(found["P"].sum())


def convolved(images, filters):
    def row(image):
        return [windows(image, 0.0, 3, 2, lambda part, f=f: (part * f.reshape(2, 3, 2)).sum()).ravel() for f in filters]

    return np.stack([np.concatenate(row(image)) for image in images])


def pooled(images, border, function):
    def row(image):
        return [windows(image, border, 2, 2, lambda part, c=c: function(part[c])).ravel() for c in range(2)]

    return np.stack([np.concatenate(row(image)) for image in images])


def windows(image, border, height, width, function):
    padded = np.pad(image.reshape(2, 5, 4), ((0, 0), (1, 1), (1, 1)), constant_values=border)
    rows, cols = range(0, padded.shape[1] - height + 1, 2), range(padded.shape[2] - width + 1)
    return np.array([[function(padded[:, i : i + height, j : j + width]) for j in cols] for i in rows])


def test_what_nobody_reads_is_not_computed():
    script = "A = matrix(0, 2, 2)\nbad = solve(A, A)\nx = 1\nif (x == 2) x = sum(bad)"
    assert dml.run(script, outputs=["x"])["x"] == 1
    with pytest.raises(DMLValueError, match="script:2:7: The 2 x 2 matrix is singular"):
        dml.run(script, outputs=["bad"])


NAMES = st.sampled_from(["A", "B", "C"])
STEPS = st.one_of(
    st.tuples(st.just("copy"), NAMES, NAMES),
    st.tuples(st.just("cell"), NAMES, st.integers(1, 2), st.integers(1, 3)),
    st.tuples(st.just("row"), NAMES, NAMES, st.integers(1, 2)),
    st.tuples(st.just("add"), NAMES, NAMES),
    st.tuples(st.just("function"), NAMES, NAMES),
)


@given(st.lists(STEPS, max_size=12))
@settings(max_examples=80, deadline=None)
def test_values_behave_as_if_copied(steps):
    lines = ["change = function(matrix[double] M) return (matrix[double] N) { N = M; M[1, 1] = 50; N[2, 3] = sum(M) }"]
    held = {name: np.full((2, 3), float(place)) for place, name in enumerate("ABC")}
    lines += [f"{name} = matrix({place}, 2, 3)" for place, name in enumerate("ABC")]
    for place, (kind, name, *rest) in enumerate(steps):
        if kind == "copy":
            lines.append(f"{name} = {rest[0]}")
            held[name] = held[rest[0]].copy()
        elif kind == "cell":
            lines.append(f"{name}[{rest[0]}, {rest[1]}] = {100 + place}")
            held[name][rest[0] - 1, rest[1] - 1] = 100 + place
        elif kind == "row":
            lines.append(f"{name}[{rest[1]}, ] = {rest[0]}[1, ] * 2")
            held[name][rest[1] - 1] = held[rest[0]][0] * 2
        elif kind == "add":
            lines.append(f"{name} = {name} + {rest[0]}")
            held[name] = held[name] + held[rest[0]]
        else:
            lines.append(f"{name} = change({rest[0]})")
            inside = held[rest[0]].copy()
            inside[0, 0] = 50
            held[name] = held[rest[0]].copy()
            held[name][1, 2] = inside.sum()
    found = dml.run("\n".join(lines), outputs=["A", "B", "C"])
    for name, expected in held.items():
        np.testing.assert_array_equal(found[name], expected)


def test_cells_are_written_in_place():
    script = "for (i in 1:1500) R[i, 1] = i\ns = sum(R)"
    matrix = np.zeros((1500, 3000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    found = dml.run("R = R + 0\n" + script, {"R": matrix}, ["s"])["s"]
    assert found == 1500 * 1501 / 2
    touched = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert touched < 200_000  # pages: 1500 copies of 36 MB would be 13 million
    assert not matrix.any()


def test_what_the_caller_holds_is_never_changed():
    data = np.ones((2, 2))
    dml.run("X[1, 1] = 5; Y = X; Y[2, ] = 7", {"X": data})
    assert (data == 1).all()
    column = sparse.csr_array(np.eye(3))
    dml.run("X[1, 1] = 0; Y = X > 1", {"X": column})
    assert column.nnz == 3


def test_turns_of_a_loop_do_not_pile_up():
    script = "x = matrix(1, 10, 10)\nfor (i in 1:3000) x = x * 1.0001\ns = mean(x)"
    assert dml.run(script, outputs=["s"])["s"] == pytest.approx(1.0001**3000)


def test_a_long_block_is_cut():
    script = "x = matrix(1, 10, 10)\n" + "x = x * 1.0001 + 0.5\n" * 1200 + "s = mean(x)"
    assert dml.run(script, outputs=["s"])["s"] == pytest.approx(dml.run(script, outputs=["s"], plain=True)["s"])


REFUSED = {
    "v = matrix(1, 1, 3); x = v + matrix(1, 2, 3)": "stands to the left",
    "x = TRUE && FALSE": "is not supported",
    "A = matrix(0, 2, 2); A[1, ] = 7": "cannot be put into 1 x 2 cells",
    "if (matrix(1, 1, 1) == 1) x = 1": "A number is needed",
    "f = function(double a, double b) return (double c) { c = a + b }\nx = f(1, b=2)": "some arguments by name",
}


@pytest.mark.parametrize("script", REFUSED)
def test_strict_refuses_what_is_else_accepted(script):
    dml.run(script)
    with pytest.raises(DMLError, match=REFUSED[script]):
        dml.run(script, strict=True)


def test_random_numbers_follow_the_seed_of_the_run():
    script = "A = rand(rows=3, cols=3); B = rand(rows=3, cols=3); s = sample(100, 5)"
    first, second, other = (dml.run(script, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first["A"], second["A"])
    np.testing.assert_array_equal(first["s"], second["s"])
    assert (first["A"] != other["A"]).any()
    assert (first["A"] != first["B"]).any()


def test_functions_come_from_files_and_folders(tmp_path):
    (tmp_path / "nn").mkdir()
    (tmp_path / "nn" / "layer.dml").write_text(
        'source("nn/help.dml") as help\n'
        "forward = function(matrix[double] X) return (matrix[double] Y) { Y = help::twice(X) + one() }\n"
        "one = function() return (double r) { r = 1 }\nprint('not run')"
    )
    (tmp_path / "nn" / "help.dml").write_text(
        "twice = function(matrix[double] X) return (matrix[double] Y) { Y = 2 * X }"
    )
    (tmp_path / "main.dml").write_text(
        'source("nn/layer.dml") as layer\nY = layer::forward(matrix(3, 1, 2))\nZ = triple(Y)'
    )
    (tmp_path / "triple.dml").write_text(
        "m_triple = function(matrix[double] X) return (matrix[double] Y) { Y = 3 * X }"
    )
    shown: list[str] = []
    found = dml.run(tmp_path / "main.dml", library=[tmp_path], show=shown.append)
    np.testing.assert_array_equal(found["Z"], [[21, 21]])
    assert shown == []
    (tmp_path / "main.dml").write_text('source("nn/layer.dml") as layer\nY = layer::foward(matrix(3, 1, 2))')
    with pytest.raises(
        DMLNameError, match=r"main.dml:2:5: There is no function 'layer::foward'(.|\n)*Did you mean 'layer::forward'"
    ):
        dml.run(tmp_path / "main.dml")
    (tmp_path / "main.dml").write_text('source("nn/missing.dml") as layer')
    with pytest.raises(DMLNameError, match=r"There is no file 'nn/missing.dml'"):
        dml.run(tmp_path / "main.dml")


@pytest.mark.parametrize(
    ("body", "depends"),
    [
        ("A[i, 1] = B[i, 1]", False),
        ("A[i, 1] = A[i, 2]", False),
        ("A[1, i] = B[1, i]; A[2, i] = 1", False),
        ("A[2 * i - 1, 1] = 1; A[2 * i, 1] = 2", False),
        ("k = 2 * i; A[(k - 1):k, ] = B[1:2, ]", False),
        ("for (j in 1:2) A[2 * (i - 1) + j, j] = 1", False),
        ("if (i > 2) x = 1 else x = 2\n A[i, 1] = x", False),
        ("total += i", False),
        ("j = 2 * i; A[i, 1] = j", False),
        ("A[i, 1] = A[i - 0, 1] + i", False),
        ("A[i, 1] = A[6 - i, 1]", True),
        ("A[i:(i + 1), 1] = B[1:2, 1]", True),
        ("A[1, 1] = i", True),
        ("A[as.scalar(B[i, 1]), 1] = i", True),
        ("A[i, 1] = sum(A)", True),
        ("total = total + i", True),
        ("total += i; A[i, 1] = total", True),
        ("if (i > 2) x = 1\n A[i, 1] = x", True),
        ("A = B * i", True),
        ("z = i", True),
        ("for (j in 1:2) A[i + j, 1] = 1", True),
        ("A[i %/% 2 + 1, 1] = 1", True),
    ],
)
def test_turns_of_a_parallel_loop_that_depend_on_one_another_are_refused(body, depends):
    script = f"parfor (i in 1:5) {{ {body} }}\nfor (j in 1:2) print(j)\nprint(sum(A) + total + z)"
    script = f"A = matrix(1, 10, 10); B = matrix(2, 10, 10); total = 0; x = 5; z = 0\n{script}"
    shown: list[str] = []
    if depends:
        with pytest.raises(DMLValueError, match="parfor"):
            dml.run(script, outputs=[], show=shown.append)
        script = script.replace("1:5)", "1:5, check=0)")
    dml.run(script, outputs=[], show=shown.append)
    assert shown
