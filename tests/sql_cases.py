"""Scripts with the answers that they must give: a line ``--> [...]`` of JSON for each row, below the statement that gives it.

Numbers agree to ten digits (or to those that are written), ``"inf"`` is infinity, and ``"..."`` is anything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CASES = Path(__file__).parent / "cases" / "sql"
DIGITS = 1e-10


def blocks(path: Path) -> Iterator[tuple[str, list[list[Any]]]]:
    """The statements of a case up to an answer, and the rows of that."""
    script: list[str] = []
    rows: list[list[Any]] = []
    for line in [*path.read_text().splitlines(), ""]:
        if line.startswith("--> "):
            rows.append(json.loads(line[4:]))
            continue
        if rows:
            yield "\n".join(script), rows
            script, rows = [], []
        script.append(line)
    yield "\n".join(script), rows


def run_case(session: Any, path: Path) -> int:
    """Run a case; the number of rows that were compared."""
    compared = 0
    for script, expected in blocks(path):
        session.execute(script)
        if expected:
            found = [list(row) for row in session.fetchall()]
            assert len(found) == len(expected), f"{script}\n{found}"
            for one, other in zip(found, expected, strict=True):
                assert same(one, other), f"{script}\nfound    {one}\nexpected {other}"
            compared += len(expected)
    return compared


def same(found: Any, expected: Any) -> bool:
    """Whether a value is the one that was expected, to its digits."""
    if expected == "...":
        return True
    if isinstance(expected, list):
        return found is not None and len(found) == len(expected) and all(map(same, found, expected))
    if expected == "inf":
        return found == math.inf
    if isinstance(expected, (int, float)) and not isinstance(expected, bool):
        digits = len(repr(expected).lstrip("-0.").replace(".", "").split("e")[0])
        slack = max(DIGITS, 10.0 ** (1 - digits)) if isinstance(expected, float) else DIGITS
        return found is not None and math.isclose(float(found), expected, rel_tol=slack, abs_tol=1e-9)
    return bool(found == expected)
