"""Linear, generalised linear and multinomial regression of the library against statsmodels and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from library_calls import DIABETES, IRIS, call, column
from numpy.testing import assert_allclose
from scipy import optimize, special

RNG = np.random.default_rng(7)

# ---- linear regression


@pytest.mark.parametrize("solver", ["lm", "lmCG", "lmDS"])
@pytest.mark.parametrize("icpt", [0, 1, 2])
def test_linear_regression_minimises_squares_plus_ridge(solver, icpt):
    X, y = DIABETES[0] * [1, 5, 2, 1, 1, 1, 3, 1, 1, 1], column(DIABETES[1])
    more = {} if solver == "lmDS" else {"tol": 1e-14, "maxi": 200}
    B = call(solver, X=X, y=y, icpt=icpt, reg=0.5, verbose=False, **more)
    Z = (X - X.mean(0)) / X.std(0, ddof=1) if icpt == 2 else X
    A = np.hstack([Z, np.ones((len(X), 1))]) if icpt else Z
    b = np.linalg.solve(A.T @ A + np.diag([0.5] * 10 + [0] * bool(icpt)), A.T @ y)
    assert_allclose(call("lmPredict", X=X, B=B, icpt=icpt), A @ b, rtol=1e-7)


FADING = RNG.normal(size=(150, 8))
WORTH = np.array([0.3, 0.25, 0.2, 0.17, 0.14, 0.11, 0.08, 0.05])


def forward(criterion, share=0.0):
    """Columns of FADING chosen one by one as long as the criterion of a list of columns falls by more than a share of it."""
    chosen = []
    while rest := set(range(8)) - set(chosen):
        j = min(rest, key=lambda j: criterion([*chosen, j]))
        if criterion(chosen) - criterion([*chosen, j]) <= share * abs(criterion(chosen)):
            break
        chosen = [*chosen, j]
    return chosen


# small values make the criterion large, so that a thousandth of it keeps columns out
@pytest.mark.parametrize(("icpt", "scale", "least"), [(1, 1, 4), (2, 1, 4), (1, 1e-9, 2)])
def test_stepwise_regression_chooses_by_the_criterion_of_statsmodels(icpt, scale, least):
    y = scale * (FADING @ WORTH + np.random.default_rng(5).normal(size=150))
    fit = lambda columns: sm.OLS(y, sm.add_constant(FADING[:, columns], prepend=False)).fit()  # noqa: E731
    # its AIC has n (1 + log 2 pi) more, so that shares of it are others
    chosen = forward(lambda columns: fit(columns).aic - 150 * (1 + np.log(2 * np.pi)), 0.001)
    assert least <= len(chosen) < least + 4
    B, S = call("steplm", X=FADING, y=column(y), icpt=icpt, reg=0.0, verbose=False)
    assert [int(j) - 1 for j in S[0]] == [*chosen, 8]
    assert_allclose(B[[*chosen, 8], 0], fit(chosen).params, rtol=1e-7)
    assert not B[sorted(set(range(8)) - set(chosen))].any()


def test_stepwise_regression_takes_nothing_where_nothing_helps(rng):
    y = column(rng.normal(size=40))
    B, S = call("steplm", X=np.ones((40, 2)), y=y, icpt=1, verbose=False)
    assert S.tolist() == [[0]]
    assert_allclose(B[:, 0], [0, 0, y.mean()], atol=1e-12)


# ---- generalised linear models


F = sm.families
BIRDS = np.column_stack([RNG.normal(size=200), RNG.uniform(0, 3, size=200), RNG.integers(0, 2, size=200)])
LINEAR = 0.3 + BIRDS @ [0.2, 0.3, -0.2]
POSITIVE = {"gamma": RNG.gamma(3, np.exp(LINEAR) / 3), "wald": RNG.wald(np.exp(LINEAR), 4)}
COUNTS, YES = RNG.poisson(np.exp(LINEAR)), RNG.binomial(1, special.expit(LINEAR - 0.5))
OF_TEN = RNG.binomial(10, special.expit(LINEAR - 0.5))
MODELS = {
    "gaussian": (LINEAR + RNG.normal(size=200), {}, lambda: F.Gaussian()),
    "gaussian log": (POSITIVE["gamma"], {"link": 1, "lpow": 0.0}, lambda: F.Gaussian(F.links.Log())),
    "poisson": (COUNTS, {"vpow": 1.0}, lambda: F.Poisson()),
    "poisson root": (COUNTS, {"vpow": 1.0, "link": 1, "lpow": 0.5}, lambda: F.Poisson(F.links.Sqrt())),
    "gamma": (POSITIVE["gamma"], {"vpow": 2.0}, lambda: F.Gamma()),
    "gamma log": (POSITIVE["gamma"], {"vpow": 2.0, "link": 1, "lpow": 0.0}, lambda: F.Gamma(F.links.Log())),
    "wald log": (POSITIVE["wald"], {"vpow": 3.0, "link": 1, "lpow": 0.0}, lambda: F.InverseGaussian(F.links.Log())),
    "tweedie": (COUNTS, {"vpow": 1.5, "link": 1, "lpow": 0.0}, lambda: F.Tweedie(F.links.Log(), var_power=1.5)),
    "logit": (YES, {"dfam": 2}, lambda: F.Binomial()),
    "probit": (YES, {"dfam": 2, "link": 3}, lambda: F.Binomial(F.links.Probit())),
    "cloglog": (YES, {"dfam": 2, "link": 4}, lambda: F.Binomial(F.links.CLogLog())),
    "cauchit": (YES, {"dfam": 2, "link": 5}, lambda: F.Binomial(F.links.Cauchy())),
    "of ten": (np.column_stack([OF_TEN, 10 - OF_TEN]), {"dfam": 2}, lambda: F.Binomial()),
}


@pytest.mark.filterwarnings("ignore:The .* link function does not respect the domain")
@pytest.mark.parametrize(("icpt", "mii"), [(2, 0), (1, 20)])
@pytest.mark.parametrize("name", MODELS)
def test_a_generalised_linear_model_has_the_weights_and_means_of_statsmodels(name, icpt, mii):
    y, options, family = MODELS[name]
    fit = sm.GLM(y, sm.add_constant(BIRDS, prepend=False), family=family()).fit(tol=1e-12, maxiter=200)
    B = call("glm", X=BIRDS, Y=y.reshape(200, -1), icpt=icpt, mii=mii, tol=1e-14, verbose=False, **options)
    assert B.shape == (4, 2 if icpt == 2 else 1)
    assert_allclose(B[:, 0], fit.params, rtol=1e-5, atol=1e-6)
    if icpt == 2:
        standardised = np.append(fit.params[:3] * BIRDS.std(0, ddof=1), fit.params @ [*BIRDS.mean(0), 1])
        assert_allclose(B[:, 1], standardised, rtol=1e-5, atol=1e-6)
    M = call("glmPredict", X=BIRDS, B=B, verbose=False, **options)
    assert_allclose(M[:, 0], fit.fittedvalues, rtol=1e-5)
    if options.get("dfam") == 2:
        assert_allclose(M.sum(axis=1), 1)


def test_a_generalised_linear_model_shares_weight_between_equal_columns_and_takes_a_ridge():
    twice = np.hstack([BIRDS, BIRDS[:, :1]])
    single = call("glm", X=BIRDS, Y=column(YES), dfam=2, icpt=1, tol=1e-12, verbose=False)
    double = call("glm", X=twice, Y=column(YES), dfam=2, icpt=1, tol=1e-12, verbose=False)
    assert_allclose(double[[0, 3]].sum(), single[0, 0], rtol=1e-6)
    A = sm.add_constant(BIRDS, prepend=False)

    def penalised(b):
        return np.logaddexp(0, A @ b).sum() - YES @ A @ b + 0.5 * 3 * (b[:3] @ b[:3])

    ridge = call("glm", X=BIRDS, Y=column(YES), dfam=2, icpt=1, reg=3.0, tol=1e-14, verbose=False)
    assert_allclose(ridge[:, 0], optimize.minimize(penalised, np.zeros(4), tol=1e-10).x, atol=1e-5)


def test_stepwise_glm_chooses_by_the_criterion_of_statsmodels():
    y = np.random.default_rng(5).poisson(np.exp(FADING @ WORTH))
    fit = lambda columns: sm.GLM(y, sm.add_constant(FADING[:, columns], prepend=False), family=F.Poisson()).fit()  # noqa: E731
    chosen = forward(lambda columns: fit(columns).aic)
    assert 3 < len(chosen) < 8
    B, S = call("stepglm", X=FADING, Y=column(y), dfam=1, vpow=1.0, icpt=1, verbose=False)
    assert [int(j) - 1 for j in S[0]] == chosen
    assert_allclose(B[[*chosen, 8], 0], fit(chosen).params, rtol=1e-5)


@pytest.mark.parametrize("icpt", [0, 1, 2])
def test_multinomial_regression_is_at_the_least_of_its_objective(icpt):
    X, y = IRIS
    X = X * [1, 1, 10, 0.1]
    betas = call("multiLogReg", X=X, Y=column(y + 1), icpt=icpt, reg=0.7, tol=1e-11, verbose=False)
    Z = (X - X.mean(0)) / X.std(0, ddof=1) if icpt == 2 else X
    A = np.hstack([Z, np.ones((150, 1))]) if icpt else Z

    def objective(b):
        L = np.hstack([A @ b.reshape(-1, 2), np.zeros((150, 1))])
        return (
            special.logsumexp(L, axis=1).sum() - L[np.arange(150), y].sum() + 0.35 * (b.reshape(-1, 2)[:4] ** 2).sum()
        )

    def slope(b):
        P = special.softmax(np.hstack([A @ b.reshape(-1, 2), np.zeros((150, 1))]), axis=1)[:, :2]
        ridge = 0.7 * b.reshape(-1, 2)
        ridge[4:] = 0
        return (A.T @ (P - np.eye(3)[y][:, :2]) + ridge).ravel()

    best = optimize.minimize(objective, np.zeros(A.shape[1] * 2), jac=slope, options={"gtol": 1e-8})
    M, found, accuracy = call("multiLogRegPredict", X=X, B=betas, Y=column(y + 1))
    L = np.hstack([A @ best.x.reshape(-1, 2), np.zeros((150, 1))])
    assert_allclose(M, special.softmax(L, axis=1), atol=1e-6)
    assert_allclose(found[:, 0], L.argmax(axis=1) + 1)
    assert accuracy == pytest.approx(100 * np.mean(L.argmax(axis=1) == y))
    assert_allclose(call("glmPredict", X=X, B=betas, dfam=3), M)


def test_multinomial_regression_takes_zero_as_the_last_class():
    X, y = IRIS
    one = call("multiLogReg", X=X, Y=column(np.where(y == 2, 0, y + 1)), verbose=False)
    other = call("multiLogReg", X=X, Y=column(y + 1), verbose=False)
    assert_allclose(one, other)
