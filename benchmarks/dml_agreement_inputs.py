"""The matrices and frames that the calls of `dml_agreement` are made on, as CSV files by a fixed seed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

ROWS = 60


def write_inputs(folder: Path) -> dict[str, bool]:
    """Write all inputs; whether each, by its name, is a frame.

    SystemDS's tables of cleaning steps are taken from its scripts, which lie unpacked in the folder.
    """
    matrices, frames = _matrices(), _frames()
    for name, file in {"primitives": "primitives.csv", "parameters": "param.csv"}.items():
        lines = (folder / "scripts" / "pipelines" / "properties" / file).read_text().splitlines()[1:]
        frames[name] = [line.split(",") for line in lines]
    for name, matrix in matrices.items():
        rows = [
            ",".join("NaN" if cell != cell else f"{cell:.6g}" for cell in row) for row in np.asarray(matrix).tolist()
        ]
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")
        sizes = {"rows": len(rows), "cols": len(rows[0].split(","))}
        about = {"data_type": "matrix", "value_type": "double", "format": "csv", "header": False, "sep": ","} | sizes
        (folder / f"{name}.csv.mtd").write_text(json.dumps(about))
    for name, rows in frames.items():
        (folder / f"{name}.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    return dict.fromkeys(matrices, False) | dict.fromkeys(frames, True)


def _matrices() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    X = rng.normal(size=(ROWS, 4))
    y = X @ np.array([[1.5], [-2.0], [0.0], [0.7]]) + 0.3 * rng.normal(size=(ROWS, 1))
    cls = np.repeat([1.0, 2.0, 3.0], ROWS // 3).reshape(-1, 1)
    centres = np.array([[0.0, 0.0], [6.0, 1.0], [1.0, 7.0]])
    zero1 = (y > 0) * 1.0
    miss = np.where(rng.random((ROWS, 4)) < 0.1, np.nan, X + 2)
    heavy = X.copy()
    heavy[[3, 20, 41], [0, 1, 2]] = [14, -11, 20]
    graph = np.zeros((12, 12))
    for start, end in [(0, 1), (1, 2), (2, 3), (4, 5), (5, 6), (6, 4), (7, 8), (8, 9), (9, 10), (10, 11), (11, 7)]:
        graph[start, end] = graph[end, start] = 1
    pos = rng.gamma(2.0, size=(20, 3)) @ rng.gamma(2.0, size=(3, 8))
    steps = np.arange(ROWS)
    return {
        "X": X, "y": y, "cls": cls, "two": zero1 + 1, "sgn": 2 * zero1 - 1, "zero1": zero1,
        "blobs": np.repeat(centres, ROWS // 3, axis=0) + 0.4 * rng.normal(size=(ROWS, 2)),
        "cats": rng.integers(1, 5, size=(ROWS, 3)), "miss": miss, "heavy": heavy, "graph": graph, "pos": pos,
        "pos60x": np.abs(X) * 3, "ratings": np.where(rng.random(pos.shape) < 0.7, pos, 0),
        "img": rng.integers(0, 256, size=(8, 6)), "img2": rng.integers(0, 256, size=(8, 6)),
        "ts": (np.sin(steps / 3) + 0.02 * steps + 0.1 * rng.normal(size=ROWS)).reshape(-1, 1),
        "weights": rng.normal(size=(6, 4)), "weights16": rng.normal(size=(16, 144)),
        "pos60": (1.0 + rng.permutation(ROWS)).reshape(-1, 1), "wide": rng.random((8, 1588)),
        "survival": np.column_stack([rng.permutation(ROWS) + 1, rng.random(ROWS) < 0.7, X[:, :2]]),
        "groups": np.column_stack([rng.integers(1, 20, ROWS), rng.random(ROWS) < 0.7, rng.integers(1, 3, (ROWS, 2))]),
        "preferences": np.array([rng.permutation(4) + 1 for _ in range(4)]),
        "preferences2": np.array([rng.permutation(4) + 1 for _ in range(4)]),
        "glovevectors": rng.random((6, 5)),
    }  # fmt: skip


def _frames() -> dict[str, list[Any]]:
    people = [
        ("1", "anna", "Graz"),
        ("2", "berta", "Wien"),
        ("3", "cara", "Linz"),
        ("4", "anna", "Graz"),
        ("5", "dora", "Graz"),
    ]
    names = ["berlin", "berlin", "berlin", "berlni", "graz", "graz", "gratz", "vienna", "vienna", "vienna"]
    said = ["SystemDS is great", "SystemDS is really great", "This test should be extended", "graz is a town"]
    return {
        "people": people,
        "words": [(name,) for name in names],
        "sentences": [(first, second) for first, second in zip(said, [*said[1:], said[0]], strict=True)],
        "texts": [("1", "graz is a town in austria"), ("2", "vienna is a town"), ("3", "a town is not a village")],
        "codes": [(f"A-{i:03d}", f"{i}.5") for i in range(30)] + [("broken value that is long", "7.5")],
        "staff": [("rank", "discipline", "salary"), ("Prof", "B", "139750"), ("AsstProf", "B", "79750"), ("Prof", "A", "70000")],
        "constraints": [
            ("index", "constraint.type", "group.by", "group.variable", "group.option", "variable1", "relation", "variable2"),
            ("1", "valueCompare", "TRUE", "rank", "Prof", "salary", "<", "100000"),
            ("2", "valueCompare", "FALSE", "", "", "salary", ">", "120000"),
        ],
        "readings": [(f"{math.sin(i / 3) + 0.02 * i:.6f}",) for i in range(30)],
        "glovewords": [(word,) for word in ("anna", "berta", "cara", "dora", "1", "2")],
    }  # fmt: skip
