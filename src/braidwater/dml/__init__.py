"""DML, the language of SystemML and SystemDS: write the mathematics, the system decides how to run it.

::

    from braidwater import dml

    results = dml.run("w = solve(t(X) %*% X + diag(matrix(l, ncol(X), 1)), t(X) %*% y)", {"X": X, "y": y, "l": 0.1})
    results["w"]
"""

from braidwater.dml.lazy import Matrix
from braidwater.dml.run import Prepared, Results, compile, run  # noqa: A004

__all__ = ["Matrix", "Prepared", "Results", "compile", "run"]
