"""What training costs under each strategy: one formula a class, the same for this machine and for a cluster that is not here."""

from __future__ import annotations

from braidwater.errors import UnsupportedError
from braidwater.planner.strategies.all_reduce import AllReduceCost
from braidwater.planner.strategies.base import Net, Place, Price, StrategyCost
from braidwater.planner.strategies.ensemble import EnsembleCost
from braidwater.planner.strategies.hierarchical import HierarchicalCost
from braidwater.planner.strategies.local_steps import AveragingCost, DiLoCoCost, ElasticAveragingCost
from braidwater.planner.strategies.mesh import MeshCost
from braidwater.planner.strategies.parameter_server import ParameterServerCost
from braidwater.planner.strategies.pipeline import PipelineCost
from braidwater.planner.strategies.sharded import ShardedCost
from braidwater.planner.strategies.single import SingleCost
from braidwater.planner.strategies.spatial import SpatialCost
from braidwater.planner.strategies.tensor_parallel import TensorParallelCost

__all__ = ["COSTS", "Net", "Place", "Price", "StrategyCost", "cost_of"]

COSTS: dict[str, StrategyCost] = {
    cost.name: cost
    for cost in (
        SingleCost(),
        AllReduceCost(),
        ShardedCost(),
        TensorParallelCost(),
        SpatialCost(),
        PipelineCost(),
        MeshCost(),
        AveragingCost(),
        HierarchicalCost(),
        DiLoCoCost(),
        ElasticAveragingCost(),
        ParameterServerCost(),
        EnsembleCost(),
    )
}


def cost_of(name: str) -> StrategyCost:
    """The formula of a strategy by its name."""
    if name not in COSTS:
        raise UnsupportedError(f"Nobody knows what strategy {name!r} costs; the planner knows {', '.join(COSTS)}.")
    return COSTS[name]
