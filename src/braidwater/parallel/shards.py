"""Tensors of which every worker holds a part: where the part lies, and the same tensor over another number of workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


@dataclass(frozen=True)
class Part:
    """A box within a tensor of `shape`: it begins at `offsets` and is `lengths` long."""

    shape: tuple[int, ...]
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]

    def overlap(self, other: Part) -> tuple[tuple[slice, ...], tuple[slice, ...]] | None:
        """Where the numbers that two parts have in common lie in each of them; None where they have none.

        >>> Part((9,), (0,), (5,)).overlap(Part((9,), (3,), (6,)))
        ((slice(3, 5, None),), (slice(0, 2, None),))
        """
        ours, theirs = [], []
        for place, (begin, other_begin) in enumerate(zip(self.offsets, other.offsets, strict=True)):
            low = max(begin, other_begin)
            high = min(begin + self.lengths[place], other_begin + other.lengths[place])
            if low >= high:
                return None
            ours.append(slice(low - begin, high - begin))
            theirs.append(slice(low - other_begin, high - other_begin))
        return tuple(ours), tuple(theirs)

    def document(self) -> list[list[int]]:
        """As JSON holds it."""
        return [list(self.shape), list(self.offsets), list(self.lengths)]

    @classmethod
    def of_document(cls, document: list[list[int]]) -> Part:
        """What `document` wrote."""
        shape, offsets, lengths = map(tuple, document)
        return cls(shape, offsets, lengths)


def is_shared(tensor: torch.Tensor) -> bool:
    """Whether workers hold the tensor together (a DTensor)."""
    return hasattr(tensor, "to_local")


def part_of(tensor: DTensor) -> Part:
    """The part of `tensor` that this worker holds."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    lengths, offsets = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return Part(tuple(tensor.shape), tuple(offsets), tuple(lengths))


def with_part(like: DTensor, local: torch.Tensor) -> DTensor:
    """A tensor that lies as `like` does, of which this worker holds `local`."""
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        local.to(like.device),
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )
