"""The examples of MADlib's manual give the numbers that it prints."""

from __future__ import annotations

import pytest

from braidwater.sql import connect
from sql_cases import CASES, run_case


@pytest.mark.parametrize("case", sorted(CASES.glob("*.sql")), ids=lambda path: path.stem)
def test_the_manuals_example_gives_its_numbers(case):
    with connect() as session:
        assert run_case(session, case) >= 3
