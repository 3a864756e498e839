"""Built-in functions against independent references: torch's layers, numpy's transforms, training written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from braidwater import dml
from braidwater.dml.builtins.stemmer import stem
from braidwater.errors import DMLError

torch = pytest.importorskip("torch")

FUNCTIONS = """
gradients = function(list[unknown] model, list[unknown] hyperparams, matrix[double] features, matrix[double] labels)
    return (list[unknown] g) {
  e = features %*% as.matrix(model["W"]) - labels
  g = list(t(features) %*% e / nrow(features))
}
aggregation = function(list[unknown] model, list[unknown] hyperparams, list[unknown] gradients)
    return (list[unknown] m) {
  m = list(W = as.matrix(model["W"]) - as.scalar(hyperparams["rate"]) * as.matrix(gradients[1]))
}
m = paramserv(model = list(W = matrix(0, 3, 1)), features = X, labels = y, upd = "gradients", agg = "aggregation",
  epochs = 3, batchsize = 5, hyperparams = list(rate = 0.1), OPTIONS)
W = as.matrix(m["W"])
"""


def trained(X, y, options):
    return dml.run(FUNCTIONS.replace("OPTIONS", options), {"X": X, "y": y}, ["W"])["W"]


@pytest.fixture
def regression():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(24, 3))
    return X, X @ [[1.0], [-2.0], [0.5]] + 0.1 * rng.normal(size=(24, 1))


def gradient(X, y, W):
    return X.T @ (X @ W - y) / len(X)


def test_workers_that_wait_for_each_other_add_their_gradients(regression):
    X, y = regression
    W = np.zeros((3, 1))
    parts = [np.arange(0, 24, 2), np.arange(1, 24, 2)]
    for _ in range(3):
        for first in (0, 5, 10):
            batches = [rows[first : first + 5] for rows in parts]
            W = W - 0.1 * sum(gradient(X[rows], y[rows], W) for rows in batches)
    assert_allclose(trained(X, y, 'k = 2, utype = "BSP", freq = "BATCH", scheme = "DISJOINT_ROUND_ROBIN"'), W)


def test_workers_that_do_not_wait_update_one_after_the_other(regression):
    X, y = regression
    W = np.zeros((3, 1))
    for _ in range(3):
        for first in (0, 5, 10):
            for begin in (0, 12):
                rows = np.arange(begin + first, min(begin + first + 5, begin + 12))
                W = W - 0.1 * gradient(X[rows], y[rows], W)
    assert_allclose(trained(X, y, 'k = 2, utype = "ASP", freq = "BATCH"'), W)


def test_an_epoch_between_visits_is_trained_locally_and_pushed_as_a_sum(regression):
    X, y = regression
    W = np.zeros((3, 1))
    for _ in range(3):
        pushed = np.zeros((3, 1))
        for begin in (0, 12):
            local = W
            for first in (0, 5, 10):
                rows = np.arange(begin + first, min(begin + first + 5, begin + 12))
                pushed = pushed + gradient(X[rows], y[rows], local)
                local = local - 0.1 * gradient(X[rows], y[rows], local)
        W = W - 0.1 * pushed
    assert_allclose(trained(X, y, 'k = 2, utype = "BSP"'), W)  # EPOCH is the default, as in SystemDS


def test_models_are_averaged(regression):
    X, y = regression
    halves = [trained(X[rows], y[rows], "k = 1").ravel() for rows in (slice(0, 12), slice(12, 24))]
    script = FUNCTIONS.replace("epochs = 3", "epochs = 1")
    once = [
        dml.run(script.replace("OPTIONS", "k = 1"), {"X": X[r], "y": y[r]}, ["W"])["W"]
        for r in (slice(12), slice(12, 24))
    ]
    found = dml.run(script.replace("OPTIONS", 'k = 2, freq = "EPOCH", modelAvg = TRUE'), {"X": X, "y": y}, ["W"])["W"]
    assert_allclose(found, np.mean(once, axis=0))
    assert not np.allclose(found.ravel(), np.mean(halves, axis=0))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ('scheme = "ROUND"', "scheme='ROUND' is not possible"),
        ("k = 99", "k=99 is not possible"),
        ('freq = "NBATCHES", nbatches = 0', "nbatches=0 is not possible"),
    ],
)
def test_a_parameter_server_refuses_what_it_cannot_do(regression, options, says):
    with pytest.raises(DMLError, match=says):
        trained(*regression, options)


def test_a_parameter_server_says_which_function_is_missing(regression):
    with pytest.raises(DMLError, match="There is no function 'nothing' for paramserv"):
        dml.run(
            FUNCTIONS.replace('"gradients"', '"nothing"').replace("OPTIONS", "k = 1"),
            dict(zip("Xy", regression, strict=True)),
            ["W"],
        )


@pytest.mark.parametrize("sequences", [True, False])
def test_long_short_term_memory_is_that_of_torch(sequences):
    rng = np.random.default_rng(0)
    n, steps, features, neurons = 4, 3, 2, 5
    layer = torch.nn.LSTM(features, neurons, batch_first=True, dtype=torch.float64)
    order = [0, 1, 3, 2]  # torch has input, forget, candidate, output
    given = [torch.cat([w.detach().chunk(4)[i] for i in order]) for w in layer.parameters()]
    W, b = torch.cat([given[0], given[1]], dim=1).T.numpy(), (given[2] + given[3]).numpy().reshape(1, -1)
    X, out0, c0 = (rng.normal(size=size) for size in ((n, steps, features), (n, neurons), (n, neurons)))
    inputs = [
        torch.tensor(X, requires_grad=True),
        *(torch.tensor(each[None], requires_grad=True) for each in (out0, c0)),
    ]
    output, (_, c) = layer(inputs[0], (inputs[1], inputs[2]))
    output = output.reshape(n, -1) if sequences else output[:, -1]
    dout, dc = rng.normal(size=output.shape), rng.normal(size=(n, neurons))
    gradients = torch.autograd.grad([output, c[0]], inputs, [torch.tensor(dout), torch.tensor(dc)])
    script = """
        [out, c] = lstm(X, W, b, out0, c0, sequences)
        [dX, dW, db, dout0, dc0] = lstm_backward(X, W, b, out0, c0, sequences, dout, dc)"""
    values = {
        "X": X.reshape(n, -1),
        "W": W,
        "b": b,
        "out0": out0,
        "c0": c0,
        "dout": dout,
        "dc": dc,
        "sequences": sequences,
    }
    found = dml.run(script, values, ["out", "c", "dX", "dout0", "dc0", "dW"])
    assert_allclose(found["out"], output.detach(), rtol=1e-10)
    assert_allclose(found["c"], c[0].detach(), rtol=1e-10)
    for name, wanted in zip(("dX", "dout0", "dc0"), gradients, strict=True):
        assert_allclose(found[name].ravel(), wanted.ravel(), rtol=1e-9, atol=1e-12)
    assert found["dW"].shape == W.shape


def test_batch_normalisation_is_that_of_torch():
    rng = np.random.default_rng(1)
    images, dout = rng.normal(2, 3, size=(2, 6, 3, 4, 2))[0], rng.normal(size=(6, 3, 4, 2))
    layer = torch.nn.BatchNorm2d(3, eps=1e-3, momentum=0.25, dtype=torch.float64)
    torch.nn.init.uniform_(layer.weight)
    x = torch.tensor(images, requires_grad=True)
    out = layer(x)
    wanted = torch.autograd.grad(out, [x, layer.weight, layer.bias], torch.tensor(dout))
    script = """
        [out, m, v, mean, inv] = batch_norm2d(X, g, b, matrix(0, 3, 1), matrix(1, 3, 1), "train", 1e-3, 0.75)
        [dX, dg, db] = batch_norm2d_backward(X, dout, g, 1e-3, mean, inv)
        [later, m2, v2, mean2, inv2] = batch_norm2d(X, g, b, m, v, "test", 1e-3, 0.75)"""
    g, b = (each.detach().numpy().reshape(-1, 1) for each in (layer.weight, layer.bias))
    found = dml.run(script, {"X": images.reshape(6, -1), "dout": dout.reshape(6, -1), "g": g, "b": b})
    assert_allclose(found["out"].ravel(), out.detach().ravel(), rtol=1e-9)
    assert_allclose(found["m"].ravel(), layer.running_mean, rtol=1e-9)
    variance = images.var(axis=(0, 2, 3))  # torch's running variance is divided by n - 1, the language's by n
    assert_allclose(found["v"].ravel(), 0.75 + 0.25 * variance, rtol=1e-9)
    for name, each in zip(("dX", "dg", "db"), wanted, strict=True):
        assert_allclose(found[name].ravel(), each.ravel(), rtol=1e-7, atol=1e-12)
    scale = 1 / np.sqrt(found["v"] + 1e-3)
    by_channel = (images.transpose(1, 0, 2, 3).reshape(3, -1) - found["m"]) * scale * g + b
    assert_allclose(found["later"].reshape(6, 3, -1).transpose(1, 0, 2).reshape(3, -1), by_channel, rtol=1e-9)


def test_fourier_transforms_and_their_inverses():
    X = np.random.default_rng(2).normal(size=(3, 9))
    script = """
        [re, im] = fft(X)
        [back, nothing] = ifft(re, im)
        [rows_re, rows_im] = fft_linearized(X)
        [half_re, half_im] = rfft(X)
        [short_re, short_im] = stft(X, 4, 1)"""
    found = dml.run(script, {"X": X})
    assert_allclose(found["re"] + 1j * found["im"], np.fft.fft2(X), atol=1e-12)
    assert_allclose(found["back"], X, atol=1e-12)
    assert_allclose(found["rows_re"] + 1j * found["rows_im"], np.fft.fft(X), atol=1e-12)
    assert_allclose(found["half_re"] + 1j * found["half_im"], np.fft.rfft(X), atol=1e-12)
    windows = [np.fft.fft(np.pad(X[:, first : first + 4], ((0, 0), (0, max(0, first + 4 - 9))))) for first in (0, 3, 6)]
    assert_allclose(found["short_re"] + 1j * found["short_im"], np.hstack(windows), atol=1e-12)


@pytest.mark.parametrize(
    ("word", "wanted"),
    # the examples of the steps in Porter's paper
    [
        ("caresses", "caress"), ("ponies", "poni"), ("cats", "cat"), ("feed", "feed"), ("agreed", "agre"), ("bled", "bled"),
        ("plastered", "plaster"), ("motoring", "motor"), ("sing", "sing"), ("conflated", "conflat"), ("sized", "size"),
        ("hopping", "hop"),
        ("falling", "fall"), ("hissing", "hiss"), ("failing", "fail"), ("filing", "file"), ("happy", "happi"),
        ("sky", "sky"),
        ("conditional", "condit"), ("rational", "ration"), ("conformabli", "conform"), ("vietnamization", "vietnam"),
        ("decisiveness", "decis"), ("sensibiliti", "sensibl"), ("triplicate", "triplic"), ("electrical", "electr"),
        ("revival", "reviv"), ("replacement", "replac"), ("adoption", "adopt"), ("probate", "probat"), ("rate", "rate"),
        ("controll", "control"), ("roll", "roll"),
    ],
)  # fmt: skip
def test_words_are_cut_to_their_stems(word, wanted):
    assert stem(word) == wanted


def test_the_transform_of_older_scripts_is_that_of_newer_ones_and_is_learnt_once(tmp_path):
    train, test = (
        {"town": ["graz", "wien", "graz", "linz"], "rooms": [1.0, 2.0, 5.0, 3.0]},
        {"town": ["linz", "wien"], "rooms": [4.0, 1.0]},
    )
    (tmp_path / "spec.json").write_text(
        '{"recode": ["town"], "dummycode": ["town"], "bin": [{"name": "rooms", "numbins": 2}]}'
    )
    script = f"""
spec = read("{tmp_path}/spec.json", data_type="scalar", value_type="string")
[A, meta] = transformencode(target=train, spec=spec)
B = transformapply(target=test, spec=spec, meta=meta)
P = transform(target=train, transformPath="{tmp_path}/learnt", transformSpec="{tmp_path}/spec.json")
Q = transform(target=test, transformPath="{tmp_path}/again", applyTransformPath="{tmp_path}/learnt")
"""
    import pandas as pd

    found = dml.run(script, {"train": pd.DataFrame(train), "test": pd.DataFrame(test)}, list("ABPQ"))
    dense = {
        name: np.asarray(found[name].todense()) if hasattr(found[name], "todense") else found[name] for name in "ABPQ"
    }
    np.testing.assert_array_equal(dense["P"], dense["A"])
    np.testing.assert_array_equal(dense["Q"], dense["B"])
    assert dense["A"].shape == (4, 4)
    with pytest.raises(DMLError, match=r"spec=None is not possible(.|\n)*applyTransformPath"):
        dml.run('A = transform(target=F, transformPath="x")', {"F": pd.DataFrame(train)}, ["A"])
