"""The program between the language and the machine: operators on matrices, as a graph in which nothing is computed twice.

A basic block of a script becomes a `Dag` of `Hop`s (high-level operators). The names of the operators that rewrites and plans
know by heart::

    leaf (attribute name: a live variable), literal (attribute value)
    + - * / ^ %% %/% < <= > >= == != & | pmin pmax       two inputs, cell by cell; a vector or scalar is repeated
    neg ! exp log sqrt abs round floor ceil sign sin cos tan ... sigmoid        one input, cell by cell
    ifelse                                                three inputs, cell by cell
    sum mean min max prod sd var trace; sumsq             a matrix to a scalar
    rowSums rowMeans rowMins rowMaxs rowIndexMax rowIndexMin rowVars rowSds      to one column
    colSums colMeans colMins colMaxs colVars colSds       to one row
    matmul t diag inv solve cbind rbind rev reshape
    index (X, first row, last row, first column, last column), leftindex (X, new, and the four bounds)
    as.scalar as.matrix nrow ncol length
    fill (value, rows, columns), seq (from, to, step), rand (attributes), table, order, cumsum, removeEmpty, ...

Bounds and sizes are inputs (literals or scalar hops), 1-based and inclusive as in the language.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from braidwater.dml.hops.facts import Facts, Scalar
from braidwater.dml.hops.sparsity import nnz_bounds
from braidwater.errors import DMLError

if TYPE_CHECKING:
    from braidwater.dml.syntax.span import Span

NOTHING: Mapping[str, Any] = MappingProxyType({})

VOLATILE = frozenset({"rand", "sample"})
"""Operators that draw: two calls are two values, so they are never merged, moved or computed again."""


class HasFacts(Protocol):
    """The part of an operator's declaration that a `Dag` needs (`braidwater.dml.operators.OPERATORS` has the whole)."""

    @property
    def facts(self) -> Callable[[Sequence[Facts], Mapping[str, Any]], Facts]: ...


# not frozen, which makes it four times slower to make, and each turn of a loop makes some
@dataclass(eq=False, slots=True)
class Hop:
    """An operator, what goes into it, and what is known of its value. Nobody changes it.

    Hops are made by a `Dag` only, which makes one for each distinct computation: the same hop is the same value. `number` is the
    place in the Dag's order of creation; inputs have smaller ones.
    """

    op: str
    inputs: tuple[Hop, ...]
    attributes: Mapping[str, Any]
    facts: Facts
    span: Span | None = None
    number: int = field(default=0, repr=False)

    def __repr__(self) -> str:
        return f"<{to_text(self)}: {self.facts}>"


class Dag:
    """The operators of one basic block, each distinct computation once.

    >>> import numpy as np
    >>> from types import SimpleNamespace
    >>> same = SimpleNamespace(facts=lambda inputs, attributes: inputs[0])
    >>> dag = Dag({"exp": same, "+": same})
    >>> X = dag.leaf("X", np.ones((3, 2)))
    >>> dag.node("exp", X) is dag.node("exp", X)
    True
    >>> dag.node("+", dag.node("exp", X), X)
    <exp(X) + X: 3 x 2>

    `operators` says how facts follow from the facts of the inputs (`braidwater.dml.operators.OPERATORS`). Its rules raise
    DMLShapeError where shapes do not go together; `node` adds the place in the script.
    """

    def __init__(self, operators: Mapping[str, HasFacts]) -> None:
        self.operators = operators
        self._known: dict[tuple[Any, ...], Hop] = {}
        self.values: dict[str, Any] = {}
        self.size = 0

    def leaf(self, name: str, value: Any, span: Span | None = None) -> Hop:
        """A live variable: its facts are those of the actual value, which `values[name]` keeps for the evaluation.

        When a script assigns to a variable and reads it again, the interpreter goes on with the new hop; the leaf keeps the value
        that the variable had when the block began. Asking for the same name with another value is a mistake of the caller.
        """
        known = self._known.get(("leaf", name))
        if known is not None:
            if self.values[name] is not value:
                raise ValueError(f"The leaf {name!r} already has another value.")
            return known
        self.values[name] = value
        return self._add(("leaf", name), "leaf", (), MappingProxyType({"name": name}), Facts.of(value), span)

    def literal(self, value: Scalar, span: Span | None = None) -> Hop:
        """A scalar of the script."""
        key = ("literal", type(value), repr(value))  # repr: 0.0 and -0.0 are equal, and NaN is not equal to itself
        known = self._known.get(key)
        return known or self._add(
            key, "literal", (), MappingProxyType({"value": value}), Facts("scalar", value=value), span
        )

    def node(self, op: str, *inputs: Hop, span: Span | None = None, **attributes: Any) -> Hop:
        """An operator on hops of this Dag. Its facts are inferred, and shapes that do not go together are refused, here.

        Attributes are hashable values (numbers, strings, tuples) or arrays, which count as different unless identical.
        """
        if op in VOLATILE:
            key: tuple[Any, ...] = (op, self.size)
        else:
            key = _key(op, inputs, attributes)
        known = self._known.get(key)
        if known is not None:
            return known
        kept = MappingProxyType(attributes) if attributes else NOTHING
        return self._add(key, op, inputs, kept, self._facts(op, inputs, kept, span), span)

    def with_inputs(self, hop: Hop, inputs: tuple[Hop, ...]) -> Hop:
        """The same operator on other hops of equal values: what is known of its value stays true, and is kept."""
        if all(new is old for new, old in zip(inputs, hop.inputs, strict=True)):
            return hop
        return self.adopt(hop.op, inputs, hop.attributes, hop.facts, hop.span)

    def adopt(
        self, op: str, inputs: tuple[Hop, ...], attributes: Mapping[str, Any], facts: Facts, span: Span | None = None
    ) -> Hop:
        """An operator whose facts the caller knows."""
        if op in VOLATILE:
            return self._add((op, self.size), op, inputs, attributes, facts, span)
        key = _key(op, inputs, attributes)
        return self._known.get(key) or self._add(key, op, inputs, attributes, facts, span)

    def _facts(self, op: str, inputs: tuple[Hop, ...], attributes: Mapping[str, Any], span: Span | None) -> Facts:
        known = [hop.facts for hop in inputs]
        try:
            facts = self.operators[op].facts(known, attributes)
        except DMLError as error:
            raise error.at(span) from None
        if facts.nnz is None and facts.kind == "matrix" and any(each.nnz for each in known):
            nnz = nnz_bounds(op, known, facts)
            return facts if nnz is None else facts._replace(nnz=nnz)
        return facts

    def _add(
        self,
        key: tuple[Any, ...],
        op: str,
        inputs: tuple[Hop, ...],
        attributes: Mapping[str, Any],
        facts: Facts,
        span: Span | None,
    ) -> Hop:
        made = Hop(op, inputs, attributes, facts, span, self.size)
        self._known[key] = made
        self.size += 1
        return made


def _key(op: str, inputs: tuple[Hop, ...], attributes: Mapping[str, Any]) -> tuple[Any, ...]:
    """What two hops that are the same computation have in common."""
    if not attributes:
        return (op, *map(id, inputs))
    return (op, *map(id, inputs), *((name, _hashable(value)) for name, value in sorted(attributes.items())))


def reachable(roots: Iterable[Hop]) -> list[Hop]:
    """The hops that the roots need, themselves included, inputs first."""
    seen: dict[int, Hop] = {}
    waiting = list(roots)
    while waiting:
        hop = waiting.pop()
        if hop.number not in seen:
            seen[hop.number] = hop
            waiting.extend(hop.inputs)
    return [seen[number] for number in sorted(seen)]


LONGEST = 2000  # characters of a text: what is built of shared parts would have exponentially many


def to_text(hop: Hop) -> str:
    """A hop as a line of the language; what it is built of is written out, and cut where that is longer than `LONGEST`.

    Cost: grows with the graph.
    """
    known: dict[Hop, str] = {}
    for each in reachable([hop]):
        text = _line(each, known)
        known[each] = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return known[hop]


def _line(hop: Hop, known: Mapping[Hop, str]) -> str:
    if hop.op == "leaf":
        return str(hop.attributes["name"])
    if hop.op == "literal":
        value = hop.attributes["value"]
        return {True: "TRUE", False: "FALSE"}[value] if isinstance(value, bool) else _number(value)
    if hop.op in INFIX and len(hop.inputs) == 2:
        return f" {INFIX[hop.op]} ".join(_bracketed(each, hop.op, known) for each in hop.inputs)
    if hop.op == "neg":
        return f"-{_bracketed(hop.inputs[0], hop.op, known)}"
    if hop.op == "index":
        rows, cols = (_range([known[each] for each in bounds]) for bounds in (hop.inputs[1:3], hop.inputs[3:5]))
        return f"{_bracketed(hop.inputs[0], hop.op, known)}[{rows}, {cols}]"
    return f"{hop.op}({', '.join([*(known[each] for each in hop.inputs), *written(hop)])})"


INFIX = {name: name for name in ["+", "-", "*", "/", "^", "%%", "%/%", "<", "<=", ">", ">=", "==", "!=", "&", "|"]} | {
    "matmul": "%*%"
}


def _bracketed(hop: Hop, outer: str, known: Mapping[Hop, str]) -> str:
    text = known[hop]
    if hop.op in INFIX and (outer in INFIX or outer in ("neg", "index")):
        return f"({text})"
    return f"({text})" if hop.op == "neg" and outer in INFIX else text


def _number(value: Scalar) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(value)


def _range(bounds: Sequence[str]) -> str:
    first, last = bounds
    return first if first == last else f"{first}:{last}"


USUAL: Mapping[str, Any] = {"min": 0, "max": 1, "sparsity": 1, "pdf": "uniform", "lambda": 1}
"""Attributes of random matrices that go without saying."""


def written(hop: Hop) -> Iterator[str]:
    """The attributes of an operator, but for what goes without saying."""
    for name, value in sorted(hop.attributes.items()):
        if hop.op == "rand" and USUAL.get(name) == value:
            continue
        yield f"{name}={value!r}" if isinstance(value, float | int | str | bool) else f"{name}=..."


def _hashable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return id(value)
    return repr(value) if isinstance(value, float) else (type(value), value)
