"""Spatial parallelism: pictures cut into regions of rows, with halo exchange."""

from __future__ import annotations

from braidwater.parallel.spatial.halo import HaloLayer, Window, predict_halo_bytes
from braidwater.parallel.spatial.strategy import SpatialParallel, halo_layers

__all__ = ["HaloLayer", "SpatialParallel", "Window", "halo_layers", "predict_halo_bytes"]
