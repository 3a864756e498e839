"""The Gram matrices of many groups in arrays, and how they are added up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from braidwater.aggregates.gram import GramResult
from braidwater.blocks.base import Array
from braidwater.kernels.choice import KernelName


@dataclass(frozen=True)
class GramStack:
    """The Gram matrices of some groups.

    `codes`, `rows` and `weight` ``(groups,)``, `mean` ``(groups, columns)``, centred `products` ``(groups, columns, columns)``.
    Ordered by code; each group is there once.
    """

    codes: Array
    rows: Array
    weight: Array
    mean: Array
    products: Array
    width: int

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, place: int) -> GramResult:
        return GramResult(
            int(self.rows[place]), float(self.weight[place]), self.mean[place], self.products[place], self.width
        )

    def part(self, chosen: Array | slice) -> GramStack:
        """Some of the groups, picked by their places or a mask (copied), or by a slice."""
        return GramStack(
            self.codes[chosen],
            self.rows[chosen],
            self.weight[chosen],
            self.mean[chosen],
            self.products[chosen],
            self.width,
        )

    def copy(self) -> GramStack:
        """The same in arrays of its own."""
        memory = self.mean.copy(), self.products.copy()
        return GramStack(self.codes.copy(), self.rows.copy(), self.weight.copy(), *memory, self.width)

    def summed(self, chosen: Array) -> GramResult:
        """The Gram matrix of the rows of several groups together, picked by their places or a mask."""
        rows, weight, mean, products = added(
            self.rows[chosen], self.weight[chosen], self.mean[chosen], self.products[chosen]
        )
        return GramResult(rows, weight, mean, products, self.width)


def stacked(parts: list[GramStack], kernel: KernelName = "blas") -> GramStack:
    """One stack of several; groups that are in more than one of them are added up in their order."""
    if all(_alike(parts[0], part) for part in parts):
        found = parts[0].copy()
        for part in parts[1:]:
            added_to(found, part, kernel)
        return found
    codes, first = np.unique(np.concatenate([part.codes for part in parts]), return_index=True)
    size = parts[0].mean.shape[1]
    found = GramStack(
        codes,
        np.concatenate([part.rows for part in parts])[first],
        np.concatenate([part.weight for part in parts])[first],
        np.empty((len(codes), size)),
        np.empty((len(codes), size, size)),
        parts[0].width,
    )
    begin = 0
    for part in parts:
        places = np.searchsorted(codes, part.codes)
        is_new = first[places] == begin + np.arange(len(part))
        found.mean[places[is_new]], found.products[places[is_new]] = part.mean[is_new], part.products[is_new]
        again = np.flatnonzero(~is_new)
        # a part of a clustered block holds a group twice only where two of its runs met
        for chosen in _distinct(places, again):
            _add(found, places[chosen], part, chosen, kernel)
        begin += len(part)
    return found


def added_to(found: GramStack, part: GramStack, kernel: KernelName) -> bool:
    """Add the groups of `part` to those of `found`, if it has all of them."""
    if _alike(found, part):
        every = np.arange(len(found))
        _add(found, every, part, every, kernel)
        return True
    places = np.minimum(np.searchsorted(found.codes, part.codes), len(found) - 1)
    if not np.array_equal(found.codes[places], part.codes):
        return False
    for chosen in _distinct(places, np.arange(len(part))):
        _add(found, places[chosen], part, chosen, kernel)
    return True


def _alike(one: GramStack, other: GramStack) -> bool:
    """Whether both have the same groups, each once."""
    return np.array_equal(one.codes, other.codes) and bool(np.all(one.codes[1:] > one.codes[:-1]))


def _distinct(places: Array, chosen: Array) -> list[Array]:
    """`chosen` cut so that no place comes twice in a part."""
    if len(np.unique(places[chosen])) == len(chosen):
        return [chosen] if len(chosen) else []
    return [np.array([one]) for one in chosen]


def _add(found: GramStack, places: Array, part: GramStack, chosen: Array, kernel: KernelName) -> None:
    """Add groups of `part` to those at `places` (Chan, Golub and LeVeque 1983)."""
    found.rows[places] += part.rows[chosen]
    if kernel == "fused":
        from braidwater.kernels.fused_group_sums import add_stack

        add_stack(found.weight, found.mean, found.products, places, chosen, part.weight, part.mean, part.products)
        return
    heavy = part.weight[chosen] > 0
    places, chosen = places[heavy], chosen[heavy]
    before, more = found.weight[places], part.weight[chosen]
    total = before + more
    gap = part.mean[chosen] - found.mean[places]
    share = (before * more / total)[:, None, None]
    found.products[places] += part.products[chosen] + share * gap[:, :, None] * gap[:, None, :]
    found.mean[places] += gap * (more / total)[:, None]
    found.weight[places] = total


def added(rows: Array, weight: Array, mean: Array, products: Array) -> tuple[int, float, Array, Array]:
    """Rows, weight, means and centred products of several sets of rows together."""
    total = float(weight.sum())
    if total <= 0:
        return int(rows.sum()), 0.0, np.zeros(mean.shape[1]), np.zeros(products.shape[1:])
    middle = mean[0] + (weight @ (mean - mean[0])) / total
    gap = mean - middle
    return int(rows.sum()), total, middle, products.sum(axis=0) + (gap * weight[:, None]).T @ gap
