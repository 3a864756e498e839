"""Matrices for Python programs that are computed when they are asked for: numpy's operators, the language's optimiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from braidwater.dml.context import Context
from braidwater.dml.explain import Explanation
from braidwater.dml.hops import Dag, Hop, reachable, to_text
from braidwater.dml.hops.facts import is_csr
from braidwater.dml.operators import OPERATORS
from braidwater.dml.runtime.deferred import whole
from braidwater.dml.runtime.evaluate import evaluate
from braidwater.dml.values import is_streamed, well_formed
from braidwater.errors import UnsupportedError, UserError

Operand = Any  # Matrix | float | int | numpy array | scipy.sparse array | Table

UFUNCS = {
    np.add: "+", np.subtract: "-", np.multiply: "*", np.true_divide: "/", np.power: "^", np.negative: "neg",
    np.less: "<", np.less_equal: "<=", np.greater: ">", np.greater_equal: ">=", np.equal: "==", np.not_equal: "!=",
    np.logical_and: "&", np.logical_or: "|", np.logical_not: "!", np.minimum: "pmin", np.maximum: "pmax",
    np.exp: "exp", np.log: "log", np.sqrt: "sqrt", np.absolute: "abs", np.floor: "floor", np.ceil: "ceil", np.sign: "sign",
    np.sin: "sin", np.cos: "cos", np.tan: "tan", np.tanh: "tanh", np.matmul: "matmul",
}  # fmt: skip
REDUCTIONS = {"sum": ("sum", "colSums", "rowSums"), "mean": ("mean", "colMeans", "rowMeans"),
              "min": ("min", "colMins", "rowMins"), "max": ("max", "colMaxs", "rowMaxs")}  # fmt: skip


class Matrix:
    """A matrix, or a number that depends on matrices, which is computed by `compute`.

    Made of a numpy array ``(rows, columns)`` (one dimension: a column), a scipy.sparse array, or a table, which is then read
    block by block and never held as a whole. numpy's operators and functions make new ones without computing anything:

    >>> import numpy as np
    >>> X = Matrix(np.arange(6.0).reshape(3, 2))
    >>> v = np.array([1.0, 2.0])
    >>> gradient = X.T @ (2 * (X @ v))
    >>> gradient.shape
    (2, 1)
    >>> gradient.compute()
    array([[144.],
           [192.]])
    >>> round(np.exp(X).sum().compute(), 2)
    234.2

    All that one `compute` asks for is optimised together: expressions are rewritten where that is cheaper, and what goes over the
    same rows shares one scan. Slices count from 0 as in numpy. A lazy value has no truth value: `compute` it first.
    """

    __array_priority__ = 1000

    def __init__(self, value: Operand) -> None:
        self._dag = Dag(OPERATORS)
        self._hop = _leaf(self._dag, value)

    @classmethod
    def _of(cls, dag: Dag, hop: Hop) -> Matrix:
        made = cls.__new__(cls)
        made._dag, made._hop = dag, hop
        return made

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns; () for a number. Computes nothing, unless sizes depend on cells."""
        if not self._hop.facts.is_matrix:
            return cast("tuple[int, int]", ())
        rows, cols = self._hop.facts.shape
        if rows is None or cols is None:
            rows, cols = self.compute().shape
        return rows, cols

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def T(self) -> Matrix:  # noqa: N802 - numpy's name
        """The transpose. Nothing is copied."""
        return self._apply("t")

    def compute(self, *, memory: int | None = None, threads: int | None = None) -> Any:
        """The cells: a numpy array, a CSR array where the result is sparse, or a Python number.

        `memory` (bytes) and `threads` take the place of the session's options.
        """
        return compute(self, memory=memory, threads=threads)[0]

    def explain(self, level: str = "hops") -> str:
        """What `compute` does, after doing it once: operators with sizes and estimates ("hops") or instructions ("runtime")."""
        told = Explanation(level)  # type: ignore[arg-type]
        _computed([self], Context(explain=told))
        return told.text

    def __repr__(self) -> str:
        return f"<Matrix {to_text(self._hop)}: {self._hop.facts}>"

    def __bool__(self) -> bool:
        raise UserError(
            f"{self!r} is not computed, so it is neither true nor false. Write bool(x.compute()), or (a * b) for a cell-wise and."
        )

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        value = self.compute()
        return np.asarray(value.toarray() if is_csr(value) else value, dtype=dtype)

    def __getitem__(self, key: Any) -> Matrix:
        rows, cols = key if isinstance(key, tuple) else (key, slice(None))
        bounds = [*_bounds(rows, self.shape[0]), *_bounds(cols, self.shape[1])]
        return self._apply("index", *bounds)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if ufunc not in UFUNCS or method != "__call__" or options:
            return NotImplemented
        first = next(each for each in inputs if isinstance(each, Matrix))
        return first._node(UFUNCS[ufunc], inputs)

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        handler = FUNCTIONS.get(function)
        if handler is None:
            return NotImplemented
        return handler(*arguments, **options)

    def sum(self, axis: int | None = None) -> Matrix:
        """Of all cells, of each column (axis 0, a row) or each row (axis 1, a column): a sum keeps two dimensions."""
        return self._reduce("sum", axis)

    def mean(self, axis: int | None = None) -> Matrix:
        return self._reduce("mean", axis)

    def min(self, axis: int | None = None) -> Matrix:
        return self._reduce("min", axis)

    def max(self, axis: int | None = None) -> Matrix:
        return self._reduce("max", axis)

    def _reduce(self, name: str, axis: int | None) -> Matrix:
        return self._apply(REDUCTIONS[name][0 if axis is None else axis % 2 + 1])

    def _apply(self, op: str, *others: Operand) -> Matrix:
        return self._node(op, (self, *others))

    def _node(self, op: str, operands: Sequence[Operand]) -> Matrix:
        dag = Dag(OPERATORS)
        copied: dict[int, Hop] = {}
        hops = [_copied(each, dag, copied) if isinstance(each, Matrix) else _leaf(dag, each) for each in operands]
        return Matrix._of(dag, dag.node(op, *hops))


def _operator(op: str, swapped: bool = False) -> Callable[[Matrix, Operand], Matrix]:
    def apply(self: Matrix, other: Operand) -> Matrix:
        return self._node(op, (other, self) if swapped else (self, other))

    return apply


for _name, _op in {"add": "+", "sub": "-", "mul": "*", "truediv": "/", "pow": "^", "matmul": "matmul"}.items():
    setattr(Matrix, f"__{_name}__", _operator(_op))
    setattr(Matrix, f"__r{_name}__", _operator(_op, swapped=True))
for _name, _op in {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=", "and": "&", "or": "|"}.items():
    setattr(Matrix, f"__{_name}__", _operator(_op))
for _name, _op in {"neg": "neg", "abs": "abs", "invert": "!"}.items():
    setattr(Matrix, f"__{_name}__", lambda self, op=_op: self._apply(op))
# == makes a matrix, so hashing is by identity
Matrix.__hash__ = object.__hash__  # type: ignore[method-assign]


def compute(*matrices: Matrix, memory: int | None = None, threads: int | None = None) -> list[Any]:
    """Several lazy matrices at once: they are optimised together and share scans.

    >>> import numpy as np
    >>> X = Matrix(np.ones((4, 2)))
    >>> [float(total) for total in compute(X.sum(), (X * X).sum())]
    [8.0, 8.0]
    """
    context = Context()
    context.memory = memory or context.memory
    context.threads = threads or context.threads
    return _computed(matrices, context)


def _computed(matrices: Sequence[Matrix], context: Context) -> list[Any]:
    dag = Dag(OPERATORS)
    copied: dict[int, Hop] = {}
    found = evaluate(dag, [_copied(matrix, dag, copied) for matrix in matrices], context)
    return [whole(value, context) for value in found]


def _copied(matrix: Matrix, dag: Dag, copied: dict[int, Hop]) -> Hop:
    """The hops of a matrix in another dag: leaves are known by their value, equal expressions become one."""
    made: dict[Hop, Hop] = {}
    for hop in reachable([matrix._hop]):
        if hop.op == "leaf":
            value = matrix._dag.values[hop.attributes["name"]]
            made[hop] = copied.get(id(value)) or _leaf(dag, value)
            copied[id(value)] = made[hop]
        else:
            made[hop] = dag.adopt(hop.op, tuple(made[each] for each in hop.inputs), hop.attributes, hop.facts)
    return made[matrix._hop]


def _leaf(dag: Dag, value: Operand) -> Hop:
    if isinstance(value, bool | int | float | np.generic):
        return dag.literal(value.item() if isinstance(value, np.generic) else value)
    if is_csr(value):
        value = well_formed(value)
    elif hasattr(value, "to_arrow") and hasattr(value, "statistics"):
        from braidwater.dml.runtime.streamed import TableMatrix

        value = TableMatrix(value)
    elif not is_streamed(value):
        value = np.asarray(value, dtype=np.float64)
        value = value.reshape(-1, 1) if value.ndim < 2 else value
        if value.ndim != 2:
            raise UserError(f"A matrix has two dimensions, and this array has {value.ndim}: {value.shape}.")
    return dag.leaf(f"M{len(dag.values) + 1}", value)


def _bounds(key: Any, size: int) -> tuple[int, int]:
    """The first and last place of a slice or number, from 1 as the language counts."""
    if isinstance(key, int | np.integer):
        place = int(key) + size if key < 0 else int(key)
        if not 0 <= place < size:
            raise IndexError(f"There is no place {key} in {size} rows or columns.")
        return place + 1, place + 1
    if not isinstance(key, slice):
        raise UnsupportedError(
            f"A lazy matrix takes numbers and slices in brackets, not {type(key).__name__}; compute() it first."
        )
    first, last, step = key.indices(size)
    if step != 1:
        raise UnsupportedError(f"A lazy matrix takes slices of step 1, not {step}; compute() it first.")
    return first + 1, max(last, first)


FUNCTIONS: dict[Any, Callable[..., Matrix]] = {
    np.sum: Matrix.sum,
    np.mean: Matrix.mean,
    np.min: Matrix.min,
    np.max: Matrix.max,
    np.transpose: lambda matrix: matrix.T,
    np.trace: lambda matrix: matrix._apply("trace"),
    np.dot: lambda left, right: _first(left, right)._node("matmul", (left, right)),
    np.where: lambda test, yes, no: _first(test, yes, no)._node("ifelse", (test, yes, no)),
    np.linalg.solve: lambda matrix, right: _first(matrix, right)._node("solve", (matrix, right)),
    np.linalg.inv: lambda matrix: matrix._apply("inv"),
    np.cumsum: lambda matrix, axis=0: matrix._apply("cumsum"),
    np.hstack: lambda parts: _first(*parts)._node("cbind", parts),
    np.vstack: lambda parts: _first(*parts)._node("rbind", parts),
}
"""numpy's functions that take lazy matrices."""


def _first(*operands: Operand) -> Matrix:
    return next(each for each in operands if isinstance(each, Matrix))
