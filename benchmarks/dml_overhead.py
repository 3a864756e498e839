"""What the language costs beside its arithmetic: microseconds an operator on tiny matrices, and seconds to read a script.

python benchmarks/dml_overhead.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from braidwater.dml.context import Context
from braidwater.dml.hops import Dag
from braidwater.dml.operators import OPERATORS
from braidwater.dml.runtime.evaluate import evaluate
from braidwater.dml.syntax import parse

OPERATORS_A_TURN, TURNS = 30, 200
SCRIPT = """f{n} = function(matrix[double] X, int k = 2) return (double s, matrix[double] Y) {{
  Y = X * k
  for (i in 1:nrow(X)) {{
    if (sum(Y[i, ]) > 0) {{ Y[i, ] = Y[i, ] / sum(Y[i, ]) }} else {{ Y[i, 1] = 1 }}
  }}
  s = sum(t(X) %*% Y)
}}
"""


def step() -> None:
    """The graph of a turn of a loop, planned (found again) and run."""
    A, B = np.ones((10, 10)), np.ones((10, 10))
    dag = Dag(OPERATORS)
    value, other = dag.leaf("A", A), dag.leaf("B", B)
    for number in range(OPERATORS_A_TURN // 2):
        value = dag.node("matmul", dag.node("*", value, dag.literal(0.01 * number)), other)
    evaluate(dag, [value], Context(threads=2))


def fastest(function: Callable[[], object], turns: int) -> float:
    """CPU seconds of the fastest call."""
    taken = []
    for _ in range(turns):
        begun = time.process_time()
        function()
        taken.append(time.process_time() - begun)
    return min(taken)


if __name__ == "__main__":
    print(f"an operator on 10 x 10 cells: {fastest(step, TURNS) / OPERATORS_A_TURN * 1e6:.1f} us (at most 20 wanted)")
    script = "".join(SCRIPT.format(n=number) for number in range(300))
    seconds = fastest(lambda: parse(script), 5)
    print(f"reading {script.count(chr(10)):,} lines: {seconds:.2f} s (at most 0.3 wanted)")
