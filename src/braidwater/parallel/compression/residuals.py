"""What compression left out, by the names of the parameters: the error that later steps feed back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch._C._distributed_c10d import GradBucket


class Residuals:
    """One number for each number of a gradient, zero in the beginning.

    Those of a bucket lie one after the other as its gradients do. DistributedDataParallel puts other parameters into its
    buckets after the first step, so what holds from step to step, and in a checkpoint, are the names.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self._names = {id(parameter): name for name, parameter in module.named_parameters()}
        self._flat: dict[tuple[int, ...], torch.Tensor] = {}
        self._held: dict[str, torch.Tensor] = {}

    def of(self, bucket: GradBucket) -> torch.Tensor:
        """The residuals of a bucket, flat, to be changed in place."""
        parameters = bucket.parameters()
        key = tuple(map(id, parameters))
        if key not in self._flat:
            self._lay_out(key, parameters, torch.zeros_like(bucket.buffer()))
        return self._flat[key]

    def _lay_out(self, key: tuple[int, ...], parameters: list[torch.Tensor], flat: torch.Tensor) -> None:
        moved = set(key)
        self._flat = {other: tensor for other, tensor in self._flat.items() if not moved & set(other)}
        for parameter, part in zip(parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True):
            name = self._names[id(parameter)]
            if name in self._held:
                part.copy_(self._held[name].reshape(-1))
            self._held[name] = part.view_as(parameter)
        self._flat[key] = flat

    def state(self) -> dict[str, torch.Tensor]:
        """The residuals by the names of the parameters."""
        return dict(self._held)

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take up what `state` gave."""
        self._flat.clear()
        self._held = dict(state)
