"""Estimators as stages of Spark's pipelines."""

from __future__ import annotations

import numpy as np
import pytest

from braidwater import KMeans, LinearRegression, Trainer, table
from braidwater.deep.modules import MLP
from braidwater.errors import ModelFileError, OptionError, UnsupportedError

pytest.importorskip("pyspark", reason="the extra [spark] is not installed")

from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import RegressionEvaluator
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.tuning import CrossValidator, ParamGridBuilder

import braidwater.spark
from braidwater.spark import SparkEstimator, SparkModel

# Spark's CrossValidator leaves a pool of threads open
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


@pytest.fixture
def points(spark, tmp_path):
    random = np.random.default_rng(2)
    x = random.normal(size=(3000, 2))
    rows = [(float(a), float(b), float(3 * a - b + e)) for (a, b), e in zip(x, random.normal(size=3000), strict=True)]
    frame = spark.createDataFrame(rows, ["a", "b", "y"])
    return VectorAssembler(inputCols=["a", "b"], outputCol="v").transform(frame)


def test_a_stage_trains_and_predicts_what_the_estimator_does(spark, points, tmp_path):
    stage = SparkEstimator(LinearRegression(), label="y", features=["v"], workers=2)
    fitted = Pipeline(stages=[stage]).fit(points)
    expected = LinearRegression().fit(table(points.drop("v"), name="points"), label="y", features=["a", "b"])
    model = fitted.stages[0].model
    assert np.allclose(model.coef_, expected.coef_, rtol=1e-9)
    found = fitted.transform(points)
    assert found.columns == ["a", "b", "y", "v", "prediction"]
    with pytest.raises(OptionError, match="estimator"):
        SparkEstimator(object())


def test_a_saved_pipeline_is_loaded_and_predicts_the_same(points, tmp_path, monkeypatch):
    """With a stage of Spark's before ours, from a model that takes several parts."""
    monkeypatch.setattr(braidwater.spark, "_PART_BYTES", 300)
    stages = [
        VectorAssembler(inputCols=["a", "b"], outputCol="w"),
        SparkEstimator(LinearRegression(), label="y", features=["w"], workers=2),
    ]
    fitted = Pipeline(stages=stages).fit(points)
    fitted.save(f"file:{tmp_path}/pipeline")
    again = PipelineModel.load(f"{tmp_path}/pipeline")
    assert [stage.uid for stage in again.stages] == [stage.uid for stage in fitted.stages]
    assert again.transform(points).toArrow().equals(fitted.transform(points).toArrow())
    kept = {path.suffix for path in (tmp_path / "pipeline").rglob("*") if path.is_file()}
    assert kept <= {"", ".parquet", ".crc", ".txt"}
    fitted.stages[1].model.intercept_ += 1.0
    fitted.write().overwrite().save(f"{tmp_path}/pipeline")
    assert PipelineModel.load(f"{tmp_path}/pipeline").stages[1].model.intercept_ == fitted.stages[1].model.intercept_


def test_a_pipeline_is_saved_before_it_is_fitted(points, tmp_path):
    stage = SparkEstimator(LinearRegression(alpha=2.0), label="y", features=["a", "b"], workers=2)
    pipeline = Pipeline(stages=[stage.copy({stage.alpha: 0.5})])
    pipeline.save(f"{tmp_path}/pipeline")
    again = Pipeline.load(f"{tmp_path}/pipeline").getStages()[0]
    assert (again.uid, again.workers, again.options) == (stage.uid, 2, {"label": "y", "features": ["a", "b"]})
    assert (again.estimator.alpha, again.getOrDefault(again.alpha)) == (2.0, 0.5)
    assert again.fit(points).model.coef_.tolist() == pipeline.fit(points).stages[0].model.coef_.tolist()
    metadata = next((tmp_path / "pipeline" / "stages").glob("*/metadata/part-*"))
    metadata.write_text(metadata.read_text().replace('"kind":"linear_regression"', '"kind":"os:system"'))
    next(metadata.parent.glob(".part*.crc")).unlink()
    with pytest.raises(ModelFileError, match="os:system"):
        Pipeline.load(f"{tmp_path}/pipeline")


@pytest.mark.parametrize(
    ("make", "what"), [(lambda: Trainer(MLP), "Trainer"), (lambda: KMeans(2, init=np.zeros((2, 2))), "init=array")]
)
def test_what_is_no_plain_value_is_not_saved_before_it_is_fitted(spark, make, what, tmp_path):
    with pytest.raises(UnsupportedError, match=what):
        SparkEstimator(make(), features=["a", "b"]).save(f"{tmp_path}/stage")


def test_a_stage_that_was_tampered_with_writes_nothing_outside_its_folder(spark, points, tmp_path):
    stage = SparkEstimator(LinearRegression(), label="y", features=["a"], workers=2).fit(points)
    stage.save(str(tmp_path / "stage"))
    path = str(tmp_path / "stage" / "model")
    rows = spark.createDataFrame([(f"{tmp_path}/outside", 0, bytearray(b"x"))], "file string, part int, content binary")
    rows.write.mode("append").parquet(path)
    with pytest.raises(ModelFileError, match="outside"):
        SparkModel.load(str(tmp_path / "stage"))
    assert not (tmp_path / "outside").exists()


def test_a_grid_of_spark_varies_the_hyperparameters(points):
    stage = SparkEstimator(LinearRegression(), label="y", features=["a", "b"], workers=2)
    grid = ParamGridBuilder().addGrid(stage.alpha, [0.0, 1e6]).build()
    search = CrossValidator(
        estimator=stage, estimatorParamMaps=grid, evaluator=RegressionEvaluator(labelCol="y"), numFolds=2, seed=1
    )
    found = search.fit(points)
    assert found.avgMetrics[0] < 1.1 < found.avgMetrics[1]
    assert found.bestModel.model.alpha == 0.0
    assert stage.estimator.alpha == LinearRegression().alpha
