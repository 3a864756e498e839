"""Some columns of a design that several models share, seen from one of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from braidwater.aggregates import GramResult, HessianResult, LossResult, MomentsResult
from braidwater.blocks.base import Array
from braidwater.encoding.design import Design, NumberTerm, Term


@dataclass(frozen=True)
class Lens:
    """Which columns of a common design are those of a model: `places` ``(width,)`` among `width` of the common one.

    A model of some columns is the common model whose other weights are 0: points are widened by zeros, and of results the
    rows and columns of the others are left out. Only rounding tells such a model from one trained on its columns alone.
    """

    places: Array
    width: int

    @staticmethod
    def of(own: Design, common: Design) -> Lens:
        """Where the columns of `own` lie in `common`, by their names."""
        numbers = {name: number for number, name in enumerate(common.names)}
        return Lens(np.array([numbers[name] for name in own.names], np.int64), common.width)

    @property
    def is_whole(self) -> bool:
        """Whether the model has all columns, in their order."""
        return len(self.places) == self.width and bool((self.places == np.arange(self.width)).all())

    def widened(self, points: Array) -> Array:
        """Weights ``(K, C, own width + 1)``, intercept last, as those of the common design."""
        wide = np.zeros((*points.shape[:-1], self.width + 1))
        wide[..., self._with_intercept] = points
        return wide

    def spread(self, values: Array, into: Array) -> None:
        """Put a number for each own column into its place among those of all."""
        into[self.places] = values

    def gram(self, found: GramResult) -> GramResult:
        """Products of the own columns."""
        kept = np.append(self.places, np.arange(self.width, len(found.mean)))
        return GramResult(
            found.rows, found.weight, found.mean[kept], found.products[np.ix_(kept, kept)], len(self.places)
        )

    def moments(self, found: MomentsResult) -> MomentsResult:
        """Moments of the own columns."""
        mean, variance, cross = (part[self.places] for part in (found.mean, found.variance, found.cross_products))
        return replace(found, mean=mean, variance=variance, cross_products=cross)

    def loss(self, found: LossResult) -> LossResult:
        """Gradients by the own weights."""
        return replace(found, gradient=found.gradient[..., self._with_intercept])

    def hessian(self, found: HessianResult) -> HessianResult:
        """Gradients and Hessians by the own weights."""
        models, classes, _ = found.gradient.shape
        wide = self.width + 1
        kept = (np.arange(classes)[:, None] * wide + self._with_intercept).reshape(-1)
        hessian = found.hessian[:, kept[:, None], kept[None, :]]
        gradient = found.gradient[..., self._with_intercept]
        return replace(found, gradient=gradient, hessian=hessian.reshape(models, len(kept), len(kept)))

    @property
    def _with_intercept(self) -> Array:
        return np.append(self.places, self.width)


def by_single_columns(design: Design) -> Design:
    """The same design whose terms do not count on which columns are neighbours in a block."""
    terms: list[Term] = []
    for term in design.terms:
        if isinstance(term, NumberTerm):
            terms += [NumberTerm((name,), term.begin + place) for place, name in enumerate(term.columns)]
        else:
            terms.append(term)
    return replace(design, terms=tuple(terms))
