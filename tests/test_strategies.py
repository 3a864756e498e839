"""Every strategy obeys the laws, and none is left out."""

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from braidwater.blocks.windows import RowForm
from braidwater.deep.losses import LOSSES
from braidwater.deep.optimizers import OptimizerPlan
from braidwater.encoding.design import NumberTerm, design_of
from braidwater.engines import LocalEngine
from braidwater.errors import DataWarning, OptionError
from braidwater.parallel import (
    STRATEGIES,
    AllReduce,
    Averaging,
    Data,
    DiLoCo,
    ElasticAveraging,
    Ensemble,
    Hierarchical,
    Mesh,
    ParameterServer,
    Pipeline,
    Sharded,
    Single,
    SpatialParallel,
    TensorParallel,
    Training,
    strategy_class,
)
from braidwater.parallel.label_skew import distance, joined, label_summary
from braidwater.testing.strategies import (
    STRATEGY_CHECKS,
    _Ready,
    check_averaging_every_step_equals_all_reduce,
    uneven_store,
)

EXAMPLES = (
    Single(),
    AllReduce(workers=2),
    Sharded(workers=2, min_parameters=1),
    Averaging(workers=2),
    Averaging(workers=2, every=3),
    DiLoCo(workers=2, every=5, outer_momentum=0.3),
    ElasticAveraging(workers=2, every=3),
    ElasticAveraging(workers=2, every=3, asynchronous=True),
    ParameterServer(workers=2, staleness=1),
    Ensemble(workers=2),
    TensorParallel(workers=2),
    SpatialParallel(workers=2),
    Pipeline(workers=2, micro_batches=2),
    Mesh(data=2),
    Hierarchical(groups=2, group_size=1, every=3),
)


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


def averaged(label, target):
    """One epoch on two workers whose shares are the first and the last of four blocks of 100 rows."""
    columns = {"x": np.random.default_rng(0).standard_normal(400), "y": label}
    store = uneven_store(columns, (100,) * 4)
    form = RowForm(design_of([NumberTerm(("x",), 0)], ["x"], label="y"))
    loss = LOSSES["cross_entropy" if target == "class" else "mse"].function
    module = torch.nn.Linear(1, 4 if target == "class" else 1)
    training = Training(module, loss, OptimizerPlan("sgd", 0.01), form, target=target, epochs=2, batch_size=20)
    return Averaging(workers=2).train(training, Data(store, source=_Ready(store)), LocalEngine(2))


LABELS = {"class": np.repeat(np.arange(4, dtype=np.uint8), 100), "number": np.linspace(0.0, 1.0, 400)}


@pytest.mark.parametrize("target", LABELS)
def test_shares_of_a_table_sorted_by_its_label_are_warned_of_once(target):
    with pytest.warns(DataWarning, match=r"worker [01] of 2.*total variation distance \d") as heard:
        averaged(LABELS[target], target)
    assert len([warning for warning in heard if warning.category is DataWarning]) == 1


@pytest.mark.parametrize("target", LABELS)
def test_shares_of_a_shuffled_table_are_not_warned_of(target):
    averaged(np.random.default_rng(1).permutation(LABELS[target]), target)  # warnings are errors


@pytest.mark.parametrize("target", ["class", "number"])
def test_summaries_of_parts_join_to_that_of_the_whole(target):
    labels = np.random.default_rng(2).integers(0, 5, 300) if target == "class" else np.linspace(1e6, 1e6 + 3, 300)
    parts = joined(label_summary(labels[:250], target), label_summary(labels[250:], target), target)
    np.testing.assert_allclose(parts, label_summary(labels, target), rtol=1e-9)


def test_the_distance_of_numbers_is_that_of_two_normal_distributions():
    one, other = np.array([50, 1.0, 50 * 4.0]), np.array([150, 2.5, 150 * 4.0])
    expected, _ = integrate.quad(lambda x: abs(stats.norm(1, 2).pdf(x) - stats.norm(2.5, 2).pdf(x)) / 2, -20, 20)
    assert distance(one, other, "number") == pytest.approx(expected, rel=1e-5)
