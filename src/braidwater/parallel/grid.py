"""Workers as a grid: each axis is one way to spread a training, and a worker talks to those that differ in that axis only."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh


class Grid:
    """The places of a gang's members along named axes, the last axis running fastest through the ranks.

    `sizes` are the workers along each axis; their product is the size of the gang. Made by all members at the same point.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        wide = {axis: size for axis, size in sizes.items() if size > 1}
        self._mesh: DeviceMesh | None = None
        if wide:
            self._mesh = init_device_mesh("cpu", tuple(wide.values()), mesh_dim_names=tuple(wide))
        self._axes = tuple(wide)
        self._sizes = dict(sizes)

    @property
    def workers(self) -> int:
        return math.prod(self._sizes.values())

    def size(self, *axes: str) -> int:
        """The workers that differ from one another along `axes`."""
        return math.prod(self._sizes.get(axis, 1) for axis in axes)

    def place(self, axis: str) -> int:
        """Where this worker stands along an axis, counted from 0."""
        return self._mesh.get_local_rank(axis) if self._mesh is not None and axis in self._axes else 0

    def group(self, *axes: str) -> dist.ProcessGroup:
        """The workers that differ from this one along `axes` only. One of them at least has more than one worker."""
        assert self._mesh is not None
        wide = tuple(axis for axis in axes if axis in self._axes)
        mesh = self._mesh[wide] if len(wide) < len(self._axes) else self._mesh
        return (mesh if len(wide) == 1 else mesh._flatten("_".join(wide))).get_group()
