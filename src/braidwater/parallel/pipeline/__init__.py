"""Pipeline parallelism: layers in stages, and micro-batches that pass through them."""

from __future__ import annotations

from braidwater.parallel.pipeline.bubble import predict_bubble, predict_step_seconds
from braidwater.parallel.pipeline.strategy import Pipeline

__all__ = ["Pipeline", "predict_bubble", "predict_step_seconds"]
