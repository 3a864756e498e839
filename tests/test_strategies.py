"""Every strategy obeys the laws, and none is left out."""

import pytest

from braidwater.errors import OptionError
from braidwater.parallel import STRATEGIES, AllReduce, Averaging, Single, strategy_class
from braidwater.testing.strategies import STRATEGY_CHECKS, check_averaging_every_step_equals_all_reduce

EXAMPLES = (Single(), AllReduce(workers=2), Averaging(workers=2), Averaging(workers=2, every=3))


@pytest.mark.parametrize("check", STRATEGY_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("strategy", EXAMPLES, ids=str)
def test_law(strategy, check):
    check(strategy)


def test_no_strategy_is_left_out():
    assert {strategy_class(name) for name in STRATEGIES} == {type(example) for example in EXAMPLES}


def test_averaging_after_every_step_equals_all_reduce():
    check_averaging_every_step_equals_all_reduce(Averaging(workers=2, every=1), AllReduce(workers=2))


@pytest.mark.parametrize(
    ("strategy", "arguments"),
    [(Averaging, {"every": 0}), (Averaging, {"every": "day"}), (AllReduce, {"workers": 0}), (Single, {"workers": 2})],
)
def test_impossible_settings_are_refused(strategy, arguments):
    with pytest.raises(OptionError, match="is not possible"):
        strategy(**arguments)
