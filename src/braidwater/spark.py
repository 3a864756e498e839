"""Estimators and trainers as stages of a pipeline of Spark's own library (`pyspark.ml`).

::

    from pyspark.ml import Pipeline
    from braidwater import LogisticRegression
    from braidwater.spark import SparkEstimator

    stage = SparkEstimator(LogisticRegression(), label="late", features=["distance", "carrier"])
    model = Pipeline(stages=[stage]).fit(flights)     # flights is a data frame of Spark
    model.transform(flights).select("prediction")

The hyperparameters of the estimator are parameters of the stage, so a grid can vary them (`ParamGridBuilder`,
`CrossValidator`). What a stage of Spark's made as a vector is read as a list of numbers. A pipeline is saved and loaded as any
other of Spark's, before it is fitted and after: ``pipeline.save(path)``, ``Pipeline.load(path)``, ``PipelineModel.load(path)``.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
from pyspark.ml import Estimator, Model
from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import VectorUDT
from pyspark.ml.param import Param, Params
from pyspark.ml.util import DefaultParamsReader, DefaultParamsWriter, MLReadable, MLReader, MLWritable, MLWriter
from pyspark.sql import DataFrame
from pyspark.sql.functions import col
from pyspark.sql.types import BooleanType, NumericType

from braidwater.engines.spark import SparkEngine
from braidwater.errors import ModelFileError, OptionError, UnsupportedError
from braidwater.report.models import ESTIMATORS, find
from braidwater.tables.spark import SparkTable

__all__ = ["SparkEstimator", "SparkModel"]

_PART_BYTES = 8 * 2**20
_PLAIN = {kind: place for kind, place in ESTIMATORS.items() if place.startswith("braidwater.estimators:")}
_STAGE = "braidwater"  # in the metadata of a stage that is saved before it is fitted


class SparkEstimator(Estimator, MLWritable, MLReadable):  # type: ignore[misc]
    """An estimator or a `Trainer` of braidwater as a stage: ``fit(frame)`` trains it by the workers of the frame's session.

    `estimator` stays as it is; each fit trains a copy with the parameters of the stage. `options` go to its ``fit``: `label`,
    `features`, `exclude`, `weight`. `workers` is how many train at a time, by default all slots of the session. The columns
    that are not named as features would be features too, so name them or `exclude` the others.
    """

    def __init__(self, estimator: Any, *, workers: int | None = None, **options: Any) -> None:
        super().__init__()
        if not hasattr(estimator, "fit") or not hasattr(estimator, "predict"):
            raise OptionError("estimator", estimator, "an estimator or a Trainer of braidwater")
        self.estimator = estimator
        self.workers = workers
        self.options = options
        for name in _hyperparameters(estimator):
            if hasattr(self, name):
                continue  # a name that Spark's stages have for something else
            parameter: Param[Any] = Param(self, name, f"{name} of {type(estimator).__name__}")
            setattr(self, name, parameter)
            self._defaultParamMap[parameter] = getattr(estimator, name)

    def _fit(self, dataset: DataFrame) -> SparkModel:
        rows = SparkTable(without_vectors(dataset), name="data frame")
        model = copy.deepcopy(self.estimator)
        for parameter, value in self.extractParamMap().items():
            setattr(model, parameter.name, value)
        model.fit(rows, engine=SparkEngine(dataset.sparkSession, self.workers), **self.options)
        return SparkModel(model)

    def write(self) -> MLWriter:
        """Writes the unfitted stage: the kind of its estimator, its parameters and options, as JSON in the stage's metadata.

        A `Trainer`, whose module and strategy are objects, is saved with its weights once it is fitted (`SparkModel`).
        """
        return _EstimatorWriter(self)

    @classmethod
    def read(cls) -> MLReader[SparkEstimator]:
        """Reads what `write` wrote; ``SparkEstimator.load(path)`` is short for it."""
        return _EstimatorReader()


class _EstimatorWriter(MLWriter):  # type: ignore[misc]
    def __init__(self, stage: SparkEstimator) -> None:
        super().__init__()
        self._stage = stage

    def saveImpl(self, path: str) -> None:  # noqa: N802 - Spark's name
        stage = self._stage
        kind = getattr(stage.estimator, "kind", None)
        if kind not in _PLAIN:
            raise UnsupportedError(
                f"A stage of {type(stage.estimator).__name__} is not saved before it is fitted, only one of "
                f"{', '.join(_PLAIN)}. Fit the pipeline and save that."
            )
        parameters = {name: getattr(stage.estimator, name) for name in _hyperparameters(stage.estimator)}
        given = {parameter.name: value for parameter, value in stage._paramMap.items()}
        for name, value in (*parameters.items(), *stage.options.items(), *given.items()):
            _require_plain(name, value)
        told = {"kind": kind, "parameters": parameters, "workers": stage.workers, "options": stage.options}
        DefaultParamsWriter.saveMetadata(stage, path, self.sparkSession, extraMetadata={_STAGE: told})


class _EstimatorReader(MLReader[SparkEstimator]):  # type: ignore[misc]
    def load(self, path: str) -> SparkEstimator:
        metadata = DefaultParamsReader.loadMetadata(path, self.sparkSession)
        told = metadata.get(_STAGE, {})
        if told.get("kind") not in _PLAIN:  # what is imported is ours, whatever the file says
            raise ModelFileError(
                f"The stage in {path!r} holds no estimator that this version knows: {told.get('kind')!r}."
            )
        estimator = find(_PLAIN[told["kind"]])(**told["parameters"])
        stage = SparkEstimator(estimator, workers=told["workers"], **told["options"])
        stage._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(stage, metadata)
        return stage


def _require_plain(name: str, value: Any) -> None:
    try:
        json.dumps(value)
    except TypeError as error:
        raise UnsupportedError(
            f"{name}={value!r} is no plain value, so the stage cannot be saved before it is fitted. Give numbers, text or lists."
        ) from error


class SparkModel(Model, MLWritable, MLReadable):  # type: ignore[misc]
    """A trained model as a stage: ``transform(frame)`` is the frame with the columns of ``model.predict``, lazily.

    Predictions that are numbers or truth values are doubles, as Spark's evaluators want them.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def _transform(self, dataset: DataFrame) -> DataFrame:
        rows = SparkTable(without_vectors(dataset), name="data frame")
        found = self.model.predict(rows, engine=SparkEngine(dataset.sparkSession))
        if not isinstance(found, SparkTable):
            raise UnsupportedError(f"{type(self.model).__name__}.predict gives no table of Spark.")
        frame: DataFrame = found.frame
        if isinstance(frame.schema["prediction"].dataType, NumericType | BooleanType):
            frame = frame.withColumn("prediction", col("prediction").cast("double"))
        return frame

    def write(self) -> MLWriter:
        """Writes the stage to a path of Spark's, on any file system that it knows; ``save(path)`` is short for it.

        Beside the metadata of every stage there is the model's folder (JSON and safetensors, no pickle) as Parquet: `_pack`.
        """
        return _Writer(self)

    @classmethod
    def read(cls) -> MLReader[SparkModel]:
        """Reads what `write` wrote; ``SparkModel.load(path)`` is short for it."""
        return _Reader()


class _Writer(MLWriter):  # type: ignore[misc]
    def __init__(self, stage: SparkModel) -> None:
        super().__init__()
        self._stage = stage

    def saveImpl(self, path: str) -> None:  # noqa: N802 - Spark's name
        with TemporaryDirectory() as folder:
            self._stage.model.save(f"{folder}/model")
            files = self.sparkSession.createDataFrame(_pack(Path(folder, "model")))
        DefaultParamsWriter.saveMetadata(self._stage, path, self.sparkSession)
        files.write.parquet(f"{path}/model")


class _Reader(MLReader[SparkModel]):  # type: ignore[misc]
    def load(self, path: str) -> SparkModel:
        from braidwater.report import load

        metadata = DefaultParamsReader.loadMetadata(path, self.sparkSession)
        files = self.sparkSession.read.parquet(f"{path}/model").toArrow()
        with TemporaryDirectory() as folder:
            _unpack(files, Path(folder))
            stage = SparkModel(load(folder))
        stage._resetUid(metadata["uid"])
        return stage


def _pack(folder: Path) -> pa.Table:
    """The files of a folder as rows: `file`, and its `content` cut into numbered parts."""
    rows = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = file.read_bytes()
        for part in range(max(-(-len(content) // _PART_BYTES), 1)):
            begin = part * _PART_BYTES
            rows.append((file.relative_to(folder).as_posix(), part, content[begin : begin + _PART_BYTES]))
    files, parts, contents = zip(*rows, strict=True)
    return pa.table({"file": files, "part": pa.array(parts, pa.int32()), "content": pa.array(contents, pa.binary())})


def _unpack(files: pa.Table, folder: Path) -> None:
    for row in files.sort_by([("file", "ascending"), ("part", "ascending")]).to_pylist():
        target = (folder / row["file"]).resolve()
        if not target.is_relative_to(folder.resolve()):
            raise ModelFileError(f"The saved stage holds a file {row['file']!r}, which is none of a model's folder.")
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "ab") as file:
            file.write(row["content"])


def without_vectors(frame: DataFrame) -> DataFrame:
    """The frame with Spark's vectors as lists of doubles."""
    vectors = {field.name for field in frame.schema.fields if isinstance(field.dataType, VectorUDT)}
    if not vectors:
        return frame
    return frame.select(*(vector_to_array(col(n)).alias(n) if n in vectors else col(n) for n in frame.columns))


def _hyperparameters(estimator: Any) -> Sequence[str]:
    names = [name for kind in type(estimator).__mro__ for name in _arguments(kind)]
    return [name for name in dict.fromkeys(names) if hasattr(estimator, name)]


def _arguments(kind: type) -> list[str]:
    if "__init__" not in vars(kind) or kind in (object, Params):
        return []
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [one.name for one in inspect.signature(kind).parameters.values() if one.kind in plain]
