"""Principal components against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn import decomposition

from braidwater.engines import LocalEngine
from braidwater.errors import DataError, OptionError, UnsupportedError
from braidwater.estimators import PCA
from braidwater.events import PassFinished, listen

random = np.random.default_rng(0)
X = (
    random.normal(size=(2000, 12)) @ np.diag(np.linspace(3, 0.5, 12)) @ np.linalg.qr(random.normal(size=(12, 12)))[0]
    + 50
)


@pytest.mark.parametrize("components", [None, 4, 0.9])
@pytest.mark.parametrize("whiten", [False, True])
def test_components_and_coordinates_agree_with_scikit_learn(components, whiten):
    expected = decomposition.PCA(components, whiten=whiten, svd_solver="full").fit(X)
    model = PCA(components, whiten=whiten).fit(X)
    assert model.n_components_ == expected.n_components_
    for name in ("components_", "explained_variance_", "explained_variance_ratio_", "singular_values_", "mean_"):
        np.testing.assert_allclose(getattr(model, name), getattr(expected, name), rtol=1e-8, atol=1e-9, err_msg=name)
    assert model.noise_variance_ == pytest.approx(expected.noise_variance_, abs=1e-10)
    np.testing.assert_allclose(model.transform(X), expected.transform(X), atol=1e-8)
    back = model.inverse_transform(model.transform(X))
    np.testing.assert_allclose(back, expected.inverse_transform(expected.transform(X)), atol=1e-8)


def test_wide_rows_take_the_randomised_way_and_agree():
    # 1200 columns around a plane of 8 directions
    low = random.normal(size=(700, 8)) * np.linspace(9, 3, 8)
    wide = low @ np.linalg.qr(random.normal(size=(1200, 8)))[0].T + random.normal(size=(700, 1200)) / 10
    expected = decomposition.PCA(5, svd_solver="full").fit(wide)
    passes = []
    with listen(lambda event: passes.append(event.what) if isinstance(event, PassFinished) else None):
        model = PCA(5).fit(wide)
    assert passes == ["moments", *["projected products"] * 6]
    np.testing.assert_allclose(model.explained_variance_, expected.explained_variance_, rtol=1e-6)
    np.testing.assert_allclose(abs(model.components_ @ expected.components_.T), np.eye(5), atol=1e-4)
    assert model.explained_variance_ratio_.sum() == pytest.approx(expected.explained_variance_ratio_.sum(), rel=1e-6)
    assert model.noise_variance_ == pytest.approx(expected.noise_variance_, rel=1e-4)


def test_fewer_rows_than_columns():
    few = X[:5]
    model, expected = PCA().fit(few), decomposition.PCA().fit(few)
    assert model.components_.shape == expected.components_.shape == (5, 12)
    np.testing.assert_allclose(model.explained_variance_, expected.explained_variance_, atol=1e-9)


def test_a_table_gets_columns_of_coordinates_for_any_number_of_workers(tmp_path):
    names = [f"c{j}" for j in range(12)]
    data = pa.table(dict(zip(names, X.T.copy(), strict=True)) | {"y": np.arange(2000)})
    models = [PCA(3).fit(data, label="y", engine=LocalEngine(workers)) for workers in (1, 4)]
    assert np.array_equal(models[0].components_, models[1].components_)
    np.testing.assert_allclose(models[0].components_, decomposition.PCA(3).fit(X).components_, atol=1e-9)
    found = models[0].transform(data).to_arrow()
    assert found.column_names == [*names, "y", "pca0", "pca1", "pca2"]
    np.testing.assert_allclose(found["pca1"], models[0].transform(X)[:, 1])
    loaded = PCA.load(models[0].save(tmp_path / "model"))
    assert loaded.transform(data).to_arrow().equals(found)
    with pytest.raises(UnsupportedError, match="has a column 'pca0' already"):
        models[0].transform(found)


def test_mistakes_are_named():
    for components in (0, -1, 1.5, True):
        with pytest.raises(OptionError, match="n_components"):
            PCA(components).fit(X)
    with pytest.raises(OptionError, match="at most 12"):
        PCA(13).fit(X)
    with pytest.raises(OptionError, match="solver='lapack'"):
        PCA(solver="lapack").fit(X)
    with pytest.raises(OptionError, match="randomised"):
        PCA(0.9, solver="randomized").fit(X)
    with pytest.raises(DataError, match="n_samples=1"):
        PCA().fit(X[:1])
