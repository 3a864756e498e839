"""What a rewrite is: an equality between two expressions, tried wherever one stands, applied where the other costs less."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from braidwater.dml.hops import Dag, Hop
from braidwater.dml.hops.facts import Scalar

OVERFLOW = "infinite cells meet each other in another order: Inf - Inf or 0 * Inf may be NaN in one form only"

Candidates = Callable[[Hop, Dag], Iterator[Hop]]


@dataclass(frozen=True)
class Rule:
    """An equality. `candidates(hop, dag)` yields hops, made in `dag`, with the same value as `hop`.

    A rule does not ask whether it pays: the optimiser adds up what each candidate costs and what becomes unused. `operators`
    are those at the top of what it matches. Values agree to rounding; `differs` says how NaN and infinity may not (a cell
    that is never computed cannot be NaN), and is empty where they agree too.
    """

    name: str
    operators: tuple[str, ...]
    candidates: Candidates
    differs: str = ""


def number_of(hop: Hop) -> Scalar | None:
    """The number of a scalar that is known while planning, else None."""
    return hop.facts.value if hop.facts.kind == "scalar" else None


def is_number(hop: Hop, value: float) -> bool:
    """Whether a hop is known to be this number (and not a truth value or a text)."""
    known = number_of(hop)
    return not isinstance(known, bool | str) and known is not None and known == value


def is_scalar(hop: Hop) -> bool:
    return hop.facts.kind == "scalar"


def same_shape(one: Hop, other: Hop) -> bool:
    """Whether two matrices surely have the same sizes."""
    return one.facts.is_matrix and other.facts.is_matrix and one.facts.known and one.facts.shape == other.facts.shape


def either_way(hop: Hop) -> tuple[tuple[Hop, Hop], tuple[Hop, Hop]]:
    """The two inputs of an operator that commutes, in both orders."""
    left, right = hop.inputs
    return (left, right), (right, left)


def transposed(hop: Hop, dag: Dag) -> Hop:
    """t(hop), without transposing twice."""
    return hop.inputs[0] if hop.op == "t" else dag.node("t", hop)
