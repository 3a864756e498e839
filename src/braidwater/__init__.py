"""braidwater: train models where the data lies.

::

    import braidwater as bw

    flights = bw.table("flights.parquet")
    model = bw.LogisticRegression().fit(flights, label="late")
    print(model.summary())

The names below are loaded when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# loaded at once: the module of the same name would otherwise take the function's place when something imports it
from braidwater.options import options as options

if TYPE_CHECKING:
    from braidwater.blocks import BlockSource as BlockSource
    from braidwater.deep import Trainer as Trainer
    from braidwater.encoding import Boolean as Boolean
    from braidwater.encoding import Categorical as Categorical
    from braidwater.encoding import Encoding as Encoding
    from braidwater.encoding import Hashed as Hashed
    from braidwater.encoding import Image as Image
    from braidwater.encoding import Numeric as Numeric
    from braidwater.encoding import Sequence as Sequence
    from braidwater.encoding import Vector as Vector
    from braidwater.engines import LocalEngine as LocalEngine
    from braidwater.engines import segments as segments
    from braidwater.estimators import PCA as PCA
    from braidwater.estimators import KMeans as KMeans
    from braidwater.estimators import LinearRegression as LinearRegression
    from braidwater.estimators import LogisticRegression as LogisticRegression
    from braidwater.events import listen as listen
    from braidwater.model_selection import cross_validate as cross_validate
    from braidwater.model_selection import fit_groups as fit_groups
    from braidwater.model_selection import search as search
    from braidwater.parallel import AllReduce as AllReduce
    from braidwater.parallel import Averaging as Averaging
    from braidwater.parallel import DiLoCo as DiLoCo
    from braidwater.parallel import ElasticAveraging as ElasticAveraging
    from braidwater.parallel import Ensemble as Ensemble
    from braidwater.parallel import Hierarchical as Hierarchical
    from braidwater.parallel import Mesh as Mesh
    from braidwater.parallel import ParameterServer as ParameterServer
    from braidwater.parallel import Pipeline as Pipeline
    from braidwater.parallel import Sharded as Sharded
    from braidwater.parallel import Single as Single
    from braidwater.parallel import SpatialParallel as SpatialParallel
    from braidwater.parallel import TensorParallel as TensorParallel
    from braidwater.report import explain as explain
    from braidwater.report import load as load
    from braidwater.report import progress as progress
    from braidwater.stats import describe as describe
    from braidwater.tables import table as table
    from braidwater.tables import train_test_split as train_test_split
    from braidwater.tables import write_table as write_table

    __version__: str

_HOMES = {
    "AllReduce": "parallel",
    "Averaging": "parallel",
    "BlockSource": "blocks",
    "Boolean": "encoding",
    "Categorical": "encoding",
    "DiLoCo": "parallel",
    "ElasticAveraging": "parallel",
    "Encoding": "encoding",
    "Ensemble": "parallel",
    "Hashed": "encoding",
    "Hierarchical": "parallel",
    "Image": "encoding",
    "KMeans": "estimators",
    "LinearRegression": "estimators",
    "LocalEngine": "engines",
    "LogisticRegression": "estimators",
    "Mesh": "parallel",
    "Numeric": "encoding",
    "PCA": "estimators",
    "ParameterServer": "parallel",
    "Pipeline": "parallel",
    "Sequence": "encoding",
    "Sharded": "parallel",
    "Single": "parallel",
    "SpatialParallel": "parallel",
    "TensorParallel": "parallel",
    "Trainer": "deep",
    "Vector": "encoding",
    "cross_validate": "model_selection",
    "describe": "stats",
    "explain": "report",
    "fit_groups": "model_selection",
    "listen": "events",
    "load": "report",
    "progress": "report",
    "search": "model_selection",
    "segments": "engines",
    "table": "tables",
    "train_test_split": "tables",
    "write_table": "tables",
}

__all__ = sorted([*_HOMES, "options"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return globals().setdefault(name, _version())
    if name == "sql":  # a face of its own: braidwater.sql.connect
        return import_module("braidwater.sql")
    if name not in _HOMES:
        raise AttributeError(f"module 'braidwater' has no attribute {name!r}")
    from braidwater.extras import needed_for

    with needed_for(f"braidwater.{name}"):
        return getattr(import_module(f"braidwater.{_HOMES[name]}"), name)


def _version() -> str:
    from importlib.metadata import (  # a third of the time that this package takes to import
        PackageNotFoundError,
        version,
    )

    try:
        return version("braidwater")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0.0.0"


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
