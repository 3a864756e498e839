"""Tensor parallelism: layers whose weights are parted over the workers."""

from __future__ import annotations

from braidwater.parallel.tensor_parallel.plan import Plan, make_plan
from braidwater.parallel.tensor_parallel.strategy import TensorParallel

__all__ = ["Plan", "TensorParallel", "make_plan"]
