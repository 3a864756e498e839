"""Every engine keeps the contract, and nothing but declared gaps is left out."""

from __future__ import annotations

import inspect
import pickle
from weakref import WeakValueDictionary

import pytest

from braidwater import engines
from braidwater.engines import Engine, LocalEngine
from braidwater.engines.once import ELSEWHERE, Once, exchange, passing_through
from braidwater.testing import ENGINE_CHECKS

ENGINES = {"local": LocalEngine}


@pytest.mark.parametrize("check", ENGINE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ENGINES)
def test_law(name, check):
    check(ENGINES[name])


def test_no_engine_is_left_out():
    public = {c for _, c in inspect.getmembers(engines, inspect.isclass) if issubclass(c, Engine)}
    assert public - {Engine} == set(ENGINES.values())


def test_what_a_worker_only_hands_on_goes_through_it_by_name():
    first, second, driver = {}, {}, WeakValueDictionary()
    with exchange(first):
        told = pickle.dumps([Once("of the first")])
    with exchange(driver):
        state = pickle.loads(told)
    with passing_through():
        handed = pickle.dumps(state)
    with exchange(second):
        state_there = pickle.loads(handed)
        assert state_there[0].value is ELSEWHERE
        answer = pickle.dumps([*state_there, Once("of the second")])
    with exchange(WeakValueDictionary(), driver):
        found = pickle.loads(answer)
    assert [one.value for one in found] == ["of the first", "of the second"]
    assert b"of the first" not in handed + answer
    assert found[0] is state[0]
