"""Every engine keeps the contract, and nothing but declared gaps is left out."""

from __future__ import annotations

import inspect

import pytest

from braidwater import engines
from braidwater.engines import Engine, LocalEngine
from braidwater.testing import ENGINE_CHECKS

ENGINES = {"local": LocalEngine}


@pytest.mark.parametrize("check", ENGINE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ENGINES)
def test_law(name, check):
    check(ENGINES[name])


def test_no_engine_is_left_out():
    public = {c for _, c in inspect.getmembers(engines, inspect.isclass) if issubclass(c, Engine)}
    assert public - {Engine} == set(ENGINES.values())
