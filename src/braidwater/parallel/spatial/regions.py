"""Messages between the workers that hold the regions of a picture, and what they are on the way back.

The workers compute one loss together. In what each knows of the whole (a sum, a picture that was gathered) all compute the
same, so the gradients of it are equal on all workers. In regions each has the gradient of its own rows, *times the number of
workers*: a mean over the workers is then the right gradient of a parameter in both cases, which is what
DistributedDataParallel makes of them.
"""

from __future__ import annotations

from typing import Any

import torch

from braidwater.parallel.parts import cut
from braidwater.parallel.spatial.halo import HaloLayer, Span, Window, most_moved, moved, needs
from braidwater.parallel.talk import Talk


class Regions:
    """This worker's place among those that share a picture. `halo_bytes` counts what it sent to neighbours."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.part, self.parts = talk.part, talk.parts
        self.halo_bytes = 0

    def own(self, height: int) -> Span:
        """The rows of this worker's region in a picture of `height`."""
        return cut(height, self.part, self.parts)

    def fetch(self, region: torch.Tensor, height: int, window: Window) -> torch.Tensor:
        """The rows that `window` needs for this worker's region of its output: (pictures, channels, rows, width)."""
        found: torch.Tensor = _Fetch.apply(region, self, height, needs(window, height, self.parts))  # type: ignore[no-untyped-call]
        return found

    def gather(self, region: torch.Tensor, height: int) -> torch.Tensor:
        """The whole picture."""
        found: torch.Tensor = _Gather.apply(region, self, height)  # type: ignore[no-untyped-call]
        return found

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of what the workers found in their regions."""
        found: torch.Tensor = _Total.apply(tensor, self)  # type: ignore[no-untyped-call]
        return found

    def spread(self, tensor: torch.Tensor) -> torch.Tensor:
        """Something that all know, for use in regions."""
        # the gradients of parameters are averaged after the backward pass anyway
        if not tensor.requires_grad or tensor.is_leaf:
            return tensor
        found: torch.Tensor = _Spread.apply(tensor, self)  # type: ignore[no-untyped-call]
        return found

    def exchange(self, sends: dict[int, torch.Tensor], receives: dict[int, torch.Tensor], most: int) -> None:
        """Send and receive rows, by worker. `most` are the bytes of the largest piece that goes from any worker to any other."""
        self.halo_bytes += sum(rows.nbytes for rows in sends.values())
        self.talk.swap(sends, receives, most)

    def others(self, height: int, needed: list[Span], *, to_others: bool) -> dict[int, Span]:
        """The rows that go from this worker to others (or come from them), by worker."""
        spans = {
            other: moved(height, needed, self.part, other) if to_others else moved(height, needed, other, self.part)
            for other in range(self.parts)
            if other != self.part
        }
        return {other: span for other, span in spans.items() if span[0] < span[1]}


class Rehearsal(Regions):
    """The first of `workers` places, with nobody at the others: writes down what would be sent, in `layers`."""

    def __init__(self, workers: int) -> None:
        self.part, self.parts, self.halo_bytes = 0, workers, 0
        self.layers: list[HaloLayer] = []

    def fetch(self, region: torch.Tensor, height: int, window: Window) -> torch.Tensor:
        self.layers.append(HaloLayer(window, height, _row_bytes(region), region.requires_grad))
        begin, end = needs(window, height, self.parts)[0]
        return torch.nn.functional.pad(region, (0, 0, 0, end - region.shape[2]))[:, :, begin:]

    def gather(self, region: torch.Tensor, height: int) -> torch.Tensor:
        return torch.nn.functional.pad(region, (0, 0, 0, height - region.shape[2]))

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor

    def spread(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor


def _row_bytes(region: torch.Tensor) -> int:
    """The bytes of one row of all pictures. A region may have no rows."""
    pictures, channels, _, width = region.shape
    return pictures * channels * width * region.element_size()


class _Fetch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, region: torch.Tensor, regions: Regions, height: int, needed: list[Span]) -> torch.Tensor:
        ctx.regions, ctx.height, ctx.needed = regions, height, needed
        begin, _ = regions.own(height)
        outgoing = regions.others(height, needed, to_others=True)
        incoming = regions.others(height, needed, to_others=False)
        pictures, channels, _, width = region.shape
        received = {
            other: region.new_empty(pictures, channels, high - low, width) for other, (low, high) in incoming.items()
        }
        regions.exchange(
            {other: region[:, :, low - begin : high - begin].contiguous() for other, (low, high) in outgoing.items()},
            received,
            most_moved(height, needed) * _row_bytes(region),
        )
        low, high = moved(height, needed, regions.part, regions.part)
        pieces = {**received, regions.part: region[:, :, low - begin : max(high, low) - begin]}
        return torch.cat([pieces[part] for part in sorted(pieces)], dim=2)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        regions, height, needed, gradient = ctx.regions, ctx.height, ctx.needed, gradients[0]
        begin, end = regions.own(height)
        first = needed[regions.part][0]
        outgoing = regions.others(height, needed, to_others=True)
        incoming = regions.others(height, needed, to_others=False)
        pictures, channels, _, width = gradient.shape
        received = {
            other: gradient.new_empty(pictures, channels, high - low, width) for other, (low, high) in outgoing.items()
        }
        regions.exchange(
            {other: gradient[:, :, low - first : high - first].contiguous() for other, (low, high) in incoming.items()},
            received,
            most_moved(height, needed) * _row_bytes(gradient),
        )
        whole = gradient.new_zeros(pictures, channels, end - begin, width)
        low, high = moved(height, needed, regions.part, regions.part)
        if low < high:
            whole[:, :, low - begin : high - begin] = gradient[:, :, low - first : high - first]
        for other, (low, high) in outgoing.items():
            whole[:, :, low - begin : high - begin] += received[other]
        return whole, None, None, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, region: torch.Tensor, regions: Regions, height: int) -> torch.Tensor:
        ctx.regions, ctx.height = regions, height
        return regions.talk.gather(region, 2, height)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        begin, end = ctx.regions.own(ctx.height)
        return gradients[0][:, :, begin:end] * ctx.regions.parts, None, None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, regions: Regions) -> torch.Tensor:
        ctx.parts = regions.parts
        return regions.talk.sum(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0] * ctx.parts, None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, regions: Regions) -> torch.Tensor:
        ctx.regions = regions
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return ctx.regions.talk.sum(gradients[0]) / ctx.regions.parts, None
