"""k-means against scikit-learn's Lloyd."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pyarrow as pa
import pytest
from sklearn.cluster import KMeans as Reference
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from braidwater.engines import LocalEngine
from braidwater.errors import ConvergenceWarning, DataError, OptionError
from braidwater.estimators import KMeans

X, GROUPS = make_blobs(6000, 10, centers=12, random_state=1)
X = X + 100  # far from zero, as real columns are
WEIGHT = np.random.default_rng(0).random(len(X))


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["equal", "weighted"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kernel", ["blas", "fused"])
def test_from_the_same_centres_it_ends_where_lloyd_does(kernel, dtype, weight):
    rows = X.astype(dtype)
    start = rows[:12]
    expected = Reference(12, init=start, n_init=1, algorithm="lloyd").fit(rows, sample_weight=weight)
    model = KMeans(12, init=start, kernel=kernel).fit(rows, sample_weight=weight)
    tolerance = 1e-10 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(model.cluster_centers_, expected.cluster_centers_, rtol=tolerance)
    assert model.inertia_ == pytest.approx(expected.inertia_, rel=max(tolerance, 1e-9))
    assert np.array_equal(model.labels_, expected.labels_)
    assert model.n_iter_ == expected.n_iter_


def test_scalable_seeding_finds_the_groups():
    best = Reference(12, n_init=10, random_state=0).fit(X).inertia_
    for seed in range(5):
        model = KMeans(12, random_state=seed).fit(X)
        assert model.inertia_ <= 1.0001 * best
        assert adjusted_rand_score(GROUPS, model.labels_) > 0.99
        assert model.n_iter_ <= 5


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_both_kernels_draw_the_same_rows(dtype):
    rows = (X - 100).astype(dtype)
    models = [KMeans(12, random_state=5, kernel=kernel).fit(rows, sample_weight=WEIGHT) for kernel in ("blas", "fused")]
    np.testing.assert_allclose(models[0].cluster_centers_, models[1].cluster_centers_, rtol=1e-4, atol=1e-4)
    assert models[0].inertia_ == pytest.approx(models[1].inertia_, rel=1e-6)


@pytest.mark.parametrize("kernel", ["blas", "fused"])
@pytest.mark.parametrize("clusters", [1, 5, 70])
def test_any_number_of_clusters_and_columns_gives_the_means_of_its_rows(clusters, kernel):
    rows = X[:5000, :7] - 100
    with pytest.warns(ConvergenceWarning) if clusters == 70 else nullcontext():
        model = KMeans(clusters, n_init=4, max_iter=3 if clusters == 70 else 300, kernel=kernel).fit(rows)
    assert np.array_equal(model.labels_, model.predict(rows))
    assert model.inertia_ == pytest.approx(((rows - model.cluster_centers_[model.labels_]) ** 2).sum(), rel=1e-9)
    expected = Reference(clusters, n_init=4, random_state=0).fit(rows).inertia_
    assert model.inertia_ <= 1.1 * expected  # with fewer clusters than groups both end in one of several optima


def test_the_best_of_several_runs_is_kept():
    singles = [KMeans(12, init="random", random_state=s).fit(X).inertia_ for s in range(4)]
    together = KMeans(12, init="random", n_init=8, random_state=0).fit(X)
    assert together.inertia_ < max(singles)
    assert together.inertia_ == pytest.approx(-together.score(X), rel=1e-9)


def test_a_centre_without_rows_moves_to_the_farthest_row():
    start = X[:12].copy()
    start[3] = 1e4
    model = KMeans(12, init=start).fit(X)
    assert np.all(np.bincount(model.labels_, minlength=12) > 0)
    expected = Reference(12, init=start, n_init=1).fit(X)
    assert model.inertia_ == pytest.approx(expected.inertia_, rel=1e-6)


def test_the_number_of_workers_and_blocks_changes_no_centre():
    data = pa.table({f"x{j}": X[:, j] for j in range(10)})
    models = [KMeans(12, random_state=3).fit(data, engine=LocalEngine(workers)) for workers in (1, 2, 4)]
    for model in models[1:]:
        assert np.array_equal(model.cluster_centers_, models[0].cluster_centers_)
    arrays = KMeans(12, random_state=3).fit(X)
    np.testing.assert_allclose(arrays.cluster_centers_, models[0].cluster_centers_, rtol=1e-12)


def test_a_table_gets_a_column_of_clusters(tmp_path):
    data = pa.table(
        {f"x{j}": X[:, j] for j in range(10)} | {"kind": [f"k{g % 3}" for g in GROUPS], "id": np.arange(6000)}
    )
    model = KMeans(12).fit(data, exclude=["id"])
    assert list(model.feature_names_[-3:]) == ["kind[k0]", "kind[k1]", "kind[k2]"]
    predicted = model.predict(data).to_arrow()
    assert predicted.column_names == [*data.column_names, "prediction"]
    assert adjusted_rand_score(GROUPS, predicted["prediction"]) > 0.99
    loaded = KMeans.load(model.save(tmp_path / "model"))
    assert loaded.predict(data).to_arrow().equals(predicted)


def test_distances_are_those_to_the_centres():
    model = KMeans(3).fit(X)
    expected = np.sqrt(((X[:50, None] - model.cluster_centers_) ** 2).sum(axis=2))
    np.testing.assert_allclose(model.transform(X[:50]), expected)
    assert np.array_equal(expected.argmin(axis=1), model.predict(X[:50]))


def test_equal_rows_leave_clusters_empty_without_an_error():
    model = KMeans(3).fit(np.ones((20, 2)))
    assert model.inertia_ == 0
    assert len(set(model.labels_)) == 1


def test_mistakes_are_named():
    with pytest.raises(DataError, match="n_samples=3 should be >= n_clusters=8"):
        KMeans(8).fit(X[:3])
    with pytest.raises(OptionError, match="init="):
        KMeans(8, init="fastest").fit(X)
    with pytest.raises(OptionError, match=r"init=.*shape \(3, 10\)"):
        KMeans(8, init=X[:3]).fit(X)
    with pytest.raises(OptionError, match="n_clusters=0"):
        KMeans(0).fit(X)
    with pytest.warns(ConvergenceWarning, match="after 1 steps"):
        KMeans(12, init=X[:12], max_iter=1).fit(X)
