"""DML, the language of SystemML and SystemDS: write the mathematics, the system decides how to run it.

::

    from braidwater import dml

    results = dml.run("w = solve(t(X) %*% X + diag(matrix(l, ncol(X), 1)), t(X) %*% y)", {"X": X, "y": y, "l": 0.1})
    results["w"]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from braidwater.dml.run import Prepared, Results, compile, run  # noqa: A004

if TYPE_CHECKING:
    from braidwater.dml.lazy import Matrix as Matrix

__all__ = ["Matrix", "Prepared", "Results", "compile", "run"]


def __getattr__(name: str) -> Any:
    if name == "Matrix":  # with all of numpy's names that it answers to: scripts need none of them
        from braidwater.dml.lazy import Matrix

        return Matrix
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
