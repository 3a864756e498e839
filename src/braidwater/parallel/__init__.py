"""Strategies: how one training is spread over workers.

Names are looked up on first use, so that naming a strategy needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from braidwater.parallel.base import Data, Strategy, Trained, Training

if TYPE_CHECKING:
    from braidwater.parallel.all_reduce import AllReduce
    from braidwater.parallel.averaging import Averaging
    from braidwater.parallel.diloco import DiLoCo
    from braidwater.parallel.elastic_averaging import ElasticAveraging
    from braidwater.parallel.ensemble import Ensemble
    from braidwater.parallel.hierarchical import Hierarchical
    from braidwater.parallel.mesh import Mesh
    from braidwater.parallel.parameter_server import ParameterServer
    from braidwater.parallel.pipeline import Pipeline
    from braidwater.parallel.sharded import Sharded
    from braidwater.parallel.single import Single
    from braidwater.parallel.spatial import SpatialParallel
    from braidwater.parallel.tensor_parallel import TensorParallel

# the name of each strategy, and where it lies; a new strategy is a new file and a line here
STRATEGIES = {
    "single": ("braidwater.parallel.single", "Single"),
    "all_reduce": ("braidwater.parallel.all_reduce", "AllReduce"),
    "averaging": ("braidwater.parallel.averaging", "Averaging"),
    "diloco": ("braidwater.parallel.diloco", "DiLoCo"),
    "elastic_averaging": ("braidwater.parallel.elastic_averaging", "ElasticAveraging"),
    "hierarchical": ("braidwater.parallel.hierarchical", "Hierarchical"),
    "mesh": ("braidwater.parallel.mesh", "Mesh"),
    "ensemble": ("braidwater.parallel.ensemble", "Ensemble"),
    "parameter_server": ("braidwater.parallel.parameter_server", "ParameterServer"),
    "pipeline": ("braidwater.parallel.pipeline", "Pipeline"),
    "sharded": ("braidwater.parallel.sharded", "Sharded"),
    "spatial": ("braidwater.parallel.spatial", "SpatialParallel"),
    "tensor_parallel": ("braidwater.parallel.tensor_parallel", "TensorParallel"),
}
_PLACES = {class_name: module for module, class_name in STRATEGIES.values()}

__all__ = [
    "STRATEGIES",
    "AllReduce",
    "Averaging",
    "Data",
    "DiLoCo",
    "ElasticAveraging",
    "Ensemble",
    "Hierarchical",
    "Mesh",
    "ParameterServer",
    "Pipeline",
    "Sharded",
    "Single",
    "SpatialParallel",
    "Strategy",
    "TensorParallel",
    "Trained",
    "Training",
    "strategy_class",
]


def strategy_class(name: str) -> type[Strategy]:
    """The class of a strategy by its name.

    >>> strategy_class("single").exact
    True
    """
    from braidwater.errors import OptionError

    if name not in STRATEGIES:
        raise OptionError("strategy", name, f"one of auto, {', '.join(STRATEGIES)}")
    module, class_name = STRATEGIES[name]
    found: type[Strategy] = getattr(import_module(module), class_name)
    return found


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
