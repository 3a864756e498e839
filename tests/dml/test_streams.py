"""Scripts over tables larger than the memory option: the numbers of the matrix in memory, within the budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from braidwater import dml
from braidwater.dml.explain import Explanation
from braidwater.tables import Table, table

ROWS, COLUMNS, MEMORY = 60_000, 8, 1_900_000  # the table takes 3.8 MB as a matrix, a column of it 480 KB

SCRIPTS = {
    "an intercept": "B = lmCG(X=X, y=y, icpt=1, maxi=4, verbose=FALSE)",
    "an intercept and scaling": "B = lmCG(X=X, y=y, icpt=2, maxi=4, verbose=FALSE)",
    "a column beside it, read behind a loop": """
Z = cbind(X, y)
for (i in 1:2) { Z = Z * 2 - i }
B = t(Z) %*% y + t(colMeans(Z))""",
    "standardised": "[Z, centre, spread] = scale(X, TRUE, TRUE)\nfor (i in 1:2) B = t(Z) %*% y + i",
    "transposed": "T = t(X)\nfor (i in 1:2) B = T %*% (y * i)",
    "added up by group": "P = table(seq(1, nrow(X)), 1 + (seq(1, nrow(X)) %% 40), nrow(X), 40)\nB = t(P) %*% X",
    "rows by their size": "Z = replace(target=X, pattern=0, replacement=NaN)\nB = t(colSums(is.nan(Z))) + sum(rowSums(X) > 0.05)",
    "some rows": "B = X[20000:20003, 3:4] + sum(X[59999:60000, 1:2])",
    "clusters": "[B, Y] = kmeans(X=X, k=3, runs=1, max_iter=3, is_verbose=FALSE, seed=3)",
    "a margin": "B = l2svm(X=X, Y=2 * (y > 0) - 1, intercept=TRUE, maxIterations=3, verbose=FALSE)",
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Table, Any, Any]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(ROWS, COLUMNS)).round(1)
    y = X @ rng.normal(size=(COLUMNS, 1)) + rng.normal(size=(ROWS, 1))
    path = tmp_path_factory.mktemp("rows") / "X.parquet"
    pq.write_table(pa.table({f"x{i}": X[:, i] for i in range(COLUMNS)}), path, row_group_size=9000)
    return table(path), X, y


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_table_larger_than_the_budget_gives_what_the_matrix_gives(script: str, rows: tuple[Table, Any, Any]) -> None:
    data, X, y = rows
    expected = dml.run(script, {"X": X, "y": y}, ["B"], threads=2)["B"]
    results = dml.run(script, {"X": data, "y": y}, ["B"], threads=2, memory=MEMORY)
    np.testing.assert_allclose(results["B"], expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())
    assert results.context.pool.largest <= MEMORY


def test_explain_says_what_is_not_kept(rows: tuple[Table, Any, Any], tmp_path: Path) -> None:
    data, _, y = rows
    told = Explanation("runtime")
    dml.run("Z = cbind(X, y)\nfor (i in 1:2) s = sum(Z) * i", {"X": data, "y": y}, ["s"], memory=MEMORY, explain=told)
    assert "60000 x 9, 4.3 MB, is not kept: whoever reads it reads the table" in told.notes[0]
    assert "cbind" in told.text.split("is not kept")[0]
