"""The data of the calls of `dml_agreement_classic`: scikit-learn's small sets and made ones, as CSV files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine


def write_inputs(folder: Path) -> dict[str, Path]:
    """Write all inputs with their metadata; the file of each by its name."""
    files = {}
    for name, matrix in {**_real(), **_made()}.items():
        cells = np.asarray(matrix, dtype=np.float64)
        files[name] = folder / f"{name}.csv"
        np.savetxt(files[name], cells, fmt="%.8g", delimiter=",")
        about = {"data_type": "matrix", "value_type": "double", "format": "csv", "header": False, "sep": ","}
        sizes = {"rows": cells.shape[0], "cols": cells.shape[1]}
        (folder / f"{name}.csv.mtd").write_text(json.dumps(about | sizes))
    return files | _frame(folder)


def _real() -> dict[str, np.ndarray]:
    diabetes, cancer, iris, wine, digits = (
        load(return_X_y=True) for load in (load_diabetes, load_breast_cancer, load_iris, load_wine, load_digits)
    )
    column = np.s_[:, np.newaxis]
    return {
        "diabetes": diabetes[0] * 20, "progress": diabetes[1][column], "high": 1.0 + (diabetes[1] > 140)[column],
        "cancer": cancer[0] / cancer[0].max(axis=0), "benign": 1.0 + cancer[1][column],
        "cancer_few": (cancer[0] / cancer[0].max(axis=0))[:, [0, 1, 4, 6]],
        "iris": iris[0], "species": 1.0 + iris[1][column], "species_coded": np.eye(3)[iris[1]],
        "iris_columns": np.array([[1, 1, 1], [2, 2, 2], [3, 3, 3], [4, 4, 4]]), "benign_coded": np.eye(2)[cancer[1]],
        "wine": wine[0] / wine[0].max(axis=0), "cultivar": 1.0 + wine[1][column],
        "digits": digits[0][:600], "digit": 1.0 + digits[1][:600, np.newaxis],
    }  # fmt: skip


def _made() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    rows = 200
    scales, groups = rng.normal(size=(rows, 2)), rng.integers(1, 4, size=(rows, 2))
    mixed = np.column_stack([scales[:, 0] + groups[:, 0], scales @ [0.8, 0.6], groups, rng.integers(1, 6, rows)])
    survival = np.column_stack(
        [np.ceil(rng.exponential(20 * np.exp(scales[:, 0] / 2))), rng.random(rows) < 0.7, scales, groups]
    )
    knots = np.linspace(0, 3, 12)[:, np.newaxis]
    ratings = rng.gamma(2.0, size=(40, 3)) @ rng.gamma(2.0, size=(3, 15))
    return {
        "counts": rng.poisson(np.exp(scales @ [[0.5], [-0.3]] + 1)), "scales": scales,
        "positive": np.exp(scales @ [[0.5], [-0.3]] + 0.2 * rng.normal(size=(rows, 1)) + 1),
        "mixed": mixed,
        "kinds": [[1, 1, 2, 2, 3]], "scale_columns": [[1, 2]], "nominal_columns": [[3, 4]],
        "mixed_columns": [[2, 3]], "mixed_kinds": [[1, 2]], "ordinal_column": [[5]],
        "one_one": [[1, 1]], "two_two": [[2, 2]], "three": [[3]],
        "strata": np.column_stack([mixed, rng.integers(1, 5, rows)]), "first_two": [[1, 2]], "third_fourth": [[3, 4]],
        "survival": survival, "time_event": [[1], [2]], "covariates": [[3], [4]], "group_column": [[5]],
        "stratum_column": [[6]], "baseline": [[0]],
        "knots": knots, "sine": np.sin(knots), "ratings": np.where(rng.random(ratings.shape) < 0.7, ratings, 0),
        "users": [[1], [2], [5]], "pairs": [[1, 2], [2, 3], [5, 4]],
    }  # fmt: skip


def _frame(folder: Path) -> dict[str, Path]:
    """A table of strings and numbers, and the specification of how it becomes a matrix."""
    rng = np.random.default_rng(11)
    rows = [
        f"{rng.choice(['north', 'south', 'west'])},{rng.integers(1, 4)},{rng.integers(50, 200)},{rng.normal():.4f}"
        for _ in range(60)
    ]
    (folder / "houses.csv").write_text("\n".join(rows) + "\n")
    about = {"data_type": "frame", "format": "csv", "header": False, "sep": ",", "rows": len(rows), "cols": 4}
    (folder / "houses.csv.mtd").write_text(json.dumps(about))
    spec = {"ids": True, "recode": [1, 2], "bin": [{"id": 3, "method": "equi-width", "numbins": 5}], "dummycode": [1]}
    (folder / "houses.json").write_text(json.dumps(spec))
    return {"houses": folder / "houses.csv", "houses_spec": folder / "houses.json"}
