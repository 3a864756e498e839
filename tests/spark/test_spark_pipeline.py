"""Estimators as stages of Spark's pipelines."""

from __future__ import annotations

import numpy as np
import pytest

from braidwater import LinearRegression, table
from braidwater.errors import OptionError

pytest.importorskip("pyspark", reason="the extra [spark] is not installed")

from pyspark.ml import Pipeline
from pyspark.ml.evaluation import RegressionEvaluator
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.tuning import CrossValidator, ParamGridBuilder

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
    fitted.stages[0].save(tmp_path / "model")
    again = SparkModel.load(tmp_path / "model").transform(points)
    assert again.agg({"prediction": "sum"}).first()[0] == found.agg({"prediction": "sum"}).first()[0]
    with pytest.raises(OptionError, match="estimator"):
        SparkEstimator(object())


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
