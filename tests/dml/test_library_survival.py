"""Survival and statistics of the library against statsmodels and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from library_calls import IRIS, call, column
from numpy.testing import assert_allclose
from scipy import stats
from sklearn import metrics
from statsmodels.duration.survfunc import SurvfuncRight, survdiff

RNG = np.random.default_rng(7)
NONE = np.zeros((1, 1))

# ---- survival


FEATURES = np.column_stack([RNG.normal(size=120), RNG.integers(0, 2, size=120)])
TIMES = np.ceil(RNG.exponential(10 * np.exp(-FEATURES @ [0.5, -0.4])))
EVENTS = (RNG.uniform(size=120) < 0.7).astype(float)
GROUP, STRATUM = RNG.integers(1, 4, size=120), RNG.integers(1, 3, size=120)
SURVIVAL = np.column_stack([TIMES, EVENTS, FEATURES, GROUP, STRATUM])


def test_cox_regression_is_that_of_statsmodels():
    fit = sm.PHReg(TIMES, FEATURES, status=EVENTS, ties="breslow").fit(disp=False)
    M, S, T, COV, RT, XO = call("cox", X=SURVIVAL, TE=column([1, 2]), F=column([3, 4]), R=np.zeros((1, 2)), alpha=0.1)
    assert_allclose(M[:, 0], fit.params, rtol=1e-7)
    assert_allclose(M[:, 2:5], np.column_stack([fit.bse, fit.tvalues, fit.pvalues]), rtol=1e-6)
    assert_allclose(M[:, 5:], fit.conf_int(0.1), rtol=1e-6)
    assert_allclose(COV, fit.cov_params(), rtol=1e-6)
    none = sm.PHReg(TIMES, FEATURES, status=EVENTS, ties="breslow").loglike(np.zeros(2))
    assert_allclose(S[:4, 0], [120, EVENTS.sum(), fit.llf, 4 - 2 * fit.llf], rtol=1e-9)
    wald = fit.params @ np.linalg.solve(fit.cov_params(), fit.params)
    assert_allclose(T[:2, 0], [wald, 2 * (fit.llf - none)], rtol=1e-6)
    assert_allclose(T[:, 2], stats.chi2.sf(T[:, 0], 2))
    model = sm.PHReg(TIMES, FEATURES, status=EVENTS, ties="breslow")
    slope = model.score(np.zeros(2))
    assert T[2, 0] == pytest.approx(slope @ np.linalg.solve(-model.hessian(np.zeros(2)), slope), rel=1e-8)
    assert_allclose(RT[:, 0], stats.rankdata(np.sort(TIMES), method="dense"))
    assert_allclose(XO[:, 0], np.sort(TIMES))
    M, *_, XO = call("cox", X=SURVIVAL[:, ::-1], TE=column([6, 5]), F=column([3]), R=NONE)  # columns 1, 2, 4 left out
    assert_allclose(XO, SURVIVAL[np.argsort(TIMES, kind="stable")][:, [0, 1, 3]])


def test_cox_regression_leaves_out_the_most_frequent_category():
    codes = (GROUP[:, None] == [1, 2, 3]).astype(float)
    X = np.column_stack([TIMES, EVENTS, codes])
    M, *_ = call("cox", X=X, TE=column([1, 2]), F=column([3, 4, 5]), R=np.array([[3, 5]]))
    others = [i for i in range(3) if i != codes.sum(axis=0).argmax()]
    assert_allclose(M[:, 0], sm.PHReg(TIMES, codes[:, others], status=EVENTS).fit(disp=False).params, rtol=1e-6)


def test_kaplan_and_meier_is_that_of_statsmodels():
    fit = SurvfuncRight(TIMES, EVENTS)
    curves, M, *_ = call("km", X=SURVIVAL, TE=column([1, 2]), GI=NONE, SI=NONE, conf_type="log-log")
    at_events = curves[curves[:, 2] > 0]
    assert len(at_events) == len(curves)
    expected = np.column_stack([fit.surv_times, fit.n_risk, fit.n_events, fit.surv_prob, fit.surv_prob_se])
    assert_allclose(at_events[:, :5], expected[fit.n_events > 0], rtol=1e-9)  # both have NaN where nobody is left
    assert M[0, :3].tolist() == [120, EVENTS.sum(), fit.quantile(0.5)]
    # intervals of log(-log(S)), whose standard error is that of log(S) divided by log(S)
    S, se = at_events[:-1, 3], at_events[:-1, 4]
    inner, wide = np.log(-np.log(S)), stats.norm.ppf(0.975) * se / S / np.abs(np.log(S))
    assert_allclose(at_events[:-1, 5:], np.exp(-np.exp(np.column_stack([inner + wide, inner - wide]))), rtol=1e-8)
    assert np.isnan(curves[-1, 4:]).all()
    curves, *_ = call("km", X=SURVIVAL, TE=column([1, 2]), GI=NONE, SI=NONE)
    S, se = curves[:-1, 3], curves[:-1, 4]
    assert_allclose(curves[:-1, 5], S * np.exp(-1.959963984540054 * se / S))
    assert_allclose(curves[:-1, 6], np.minimum(1, S * np.exp(1.959963984540054 * se / S)))


def test_groups_and_strata_have_curves_of_their_own():
    curves, M, *_ = call("km", X=SURVIVAL, TE=column([1, 2]), GI=np.array([[5]]), SI=np.array([[6]]))
    assert M[:, :2].tolist() == [[g, s] for s in (1, 2) for g in (1, 2, 3)]
    for i, (g, s) in enumerate(M[:, :2]):
        rows = (g == GROUP) & (s == STRATUM)
        fit = SurvfuncRight(TIMES[rows], EVENTS[rows])
        own = curves[:, 7 * i : 7 * i + 7]
        assert_allclose(own[own[:, 2] > 0, 3], fit.surv_prob[fit.n_events > 0], rtol=1e-9)
        assert M[i, 2:4].tolist() == [rows.sum(), EVENTS[rows].sum()]


def test_a_median_lies_between_times_where_exactly_a_half_survives():
    halves = np.array([[1, 1], [2, 1], [4, 1], [5, 1.0]])
    given = {"TE": column([1, 2]), "GI": NONE, "SI": NONE}
    _, M, *_ = call("km", X=halves, **given)
    assert M[0, 2] == 3  # as survfit of R has it: half of the rows are left from 2 until 4
    curves, M, *_ = call("km", X=halves * [1, 0], **given)
    assert np.isnan(M[0, 2])
    assert curves[0, 2:4].tolist() == [0, 1]


@pytest.mark.parametrize(("test", "weight"), [("log-rank", None), ("wilcoxon", "gb")])
@pytest.mark.parametrize("strata", [False, True])
def test_groups_are_compared_as_statsmodels_does(test, weight, strata):
    statistic, p = survdiff(TIMES, EVENTS, GROUP, weight_type=weight, strata=STRATUM if strata else None)
    _, _, T, groups = call(
        "km", X=SURVIVAL, TE=column([1, 2]), GI=np.array([[5]]), SI=np.array([[6]]) if strata else NONE, test_type=test
    )
    assert T[0, :2].tolist() == [3, 2]
    if not (strata and weight):  # it weighs strata by their rows as numbers, we as shares of each
        assert_allclose(T[0, 2:], [statistic, p], rtol=1e-8)
    if weight is None:
        assert groups[:, 0].tolist() == groups[:, 1].tolist()
        assert groups[:, 1].sum() == pytest.approx(groups[:, 2].sum())


# ---- statistics


def test_univariate_statistics_are_those_of_scipy(rng):
    x, codes = rng.gamma(2, size=101), rng.integers(1, 5, size=101)
    S = call("univar", X=np.column_stack([x, codes]), types=np.array([[1, 2]]))
    sd, n = x.std(ddof=1), 101
    skewed = np.sqrt(6 * n * (n - 1) / ((n - 2) * (n + 1) * (n + 3)))
    expected = [
        x.min(), x.max(), np.ptp(x), x.mean(), sd**2, sd, stats.sem(x), stats.variation(x, ddof=1),
        stats.skew(x) * ((n - 1) / n) ** 1.5, (stats.kurtosis(x) + 3) * ((n - 1) / n) ** 2 - 3, skewed,
        2 * skewed * np.sqrt((n**2 - 1) / ((n - 3) * (n + 5))), np.median(x),
    ]  # fmt: skip
    assert_allclose(S[:13, 0], expected, rtol=1e-10)
    assert np.quantile(x, 0.4) < S[13, 0] < np.quantile(x, 0.7)
    counts = np.bincount(codes, minlength=5)
    assert S[:14, 1].any() == 0
    assert S[14:, 1].tolist() == [codes.max(), 4 - counts[:0:-1].argmax(), (counts == counts.max()).sum()]


def test_bivariate_statistics_are_those_of_scipy(rng):
    x, y = rng.normal(size=(2, 90))
    a, b = rng.integers(1, 4, size=(2, 90))
    S1, T1 = np.array([[1, 3]]), np.array([[1, 3]])
    S2, T2 = np.array([[2, 4]]), np.array([[1, 3]])
    numbers, groups, codes, ranks = call("bivar", X=np.column_stack([x, y, a, b]), S1=S1, S2=S2, T1=T1, T2=T2)
    expected = [1, 2, stats.pearsonr(x, y)[0], np.cov(x, y)[0, 1], x.std(ddof=1), y.std(ddof=1)]
    assert_allclose(numbers[:, 0], expected)
    assert groups[:2].T.tolist() == [[1, 4], [3, 2]]
    F, p = stats.f_oneway(*(x[b == k] for k in (1, 2, 3)))
    assert_allclose(groups[3:5, 0], [F, p])
    assert_allclose(groups[5:7, 0].sum(), 90 * x.var())
    assert_allclose(groups[2, 0] ** 2, groups[5, 0] / (90 * x.var()))
    assert groups[7:9, 0].tolist() == [2, 87]
    table = np.histogram2d(a, b, bins=[np.arange(1, 5)] * 2)[0]
    chi = stats.chi2_contingency(table, correction=False)
    assert_allclose(codes[2:, 0], [chi[0], chi[2], chi[1], stats.contingency.association(table.astype(int))])
    assert_allclose(ranks[2, 0], stats.spearmanr(a, b)[0])


def test_correlations_and_distances_are_those_of_numpy():
    X = IRIS[0] + 1000
    assert_allclose(call("cor", X=X), np.corrcoef(X.T), rtol=1e-9)
    assert_allclose(call("dist", X=X), metrics.pairwise_distances(IRIS[0]), atol=1e-9)
