"""Many models in one scan: the same numbers as each alone, what goes together, and who may join on the way."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braidwater.aggregates import Moments
from braidwater.deep import Trainer
from braidwater.errors import LabelError, NumericalError, OptionError
from braidwater.estimators import PCA, KMeans, LinearRegression, LogisticRegression
from braidwater.events import PassFinished, listen
from braidwater.model_selection import Choice, explain_many, fit_many, search
from braidwater.parallel.stacked_optimizer import optimizer_of
from braidwater.planner import REFERENCE, StepTimes, Work
from braidwater.planner.cost import Job
from braidwater.planner.many_models import plan_models
from braidwater.planner.this_machine import ThisMachine
from braidwater.tables import table, train_test_split
from braidwater.tables.base import TableStatistics

random = np.random.default_rng(0)
ROWS = 3000
X = random.normal(size=(ROWS, 4)) + np.array([0.0, 10.0, -3.0, 0.0])
ODDS = X[:, 0] - X[:, 1] + 10 + (random.random(ROWS) < 0.3)
TABLE = pa.table(
    {
        **{f"x{j}": X[:, j] for j in range(4)},
        "shop": random.choice(["a", "b", "c"], ROWS),
        "w": random.uniform(0.5, 2, ROWS),
        "y": (random.random(ROWS) < 1 / (1 + np.exp(-ODDS))).astype(np.int64),
        "t": ODDS + random.normal(size=ROWS),
    }
)
FIGURES = ("coef_", "intercept_", "standard_errors_", "cluster_centers_", "inertia_", "components_", "aic_", "r2_")


def close(one: object, other: object) -> bool:
    """Whether all figures of two fitted models are equal to 1e-10."""
    names = [name for name in FIGURES if getattr(other, name, None) is not None]
    assert names
    return all(np.allclose(getattr(one, name), getattr(other, name), rtol=1e-10, atol=1e-10) for name in names)


def passes_of(call) -> tuple[object, int]:
    heard = []
    with listen(lambda event: heard.append(event) if isinstance(event, PassFinished) else None):
        found = call()
    return found, len(heard)


# -- estimators ----------------------------------------------------------------------------------------------------

LOGISTIC = [
    (LogisticRegression(solver="lbfgs"), None),
    (LogisticRegression(1e-3, solver="lbfgs"), ["x0", "x1", "shop"]),
    (LogisticRegression(1e-1, solver="newton"), ["x3", "x1"]),
    (LogisticRegression(1e-2, solver="lbfgs", fit_intercept=False), None),
    (LogisticRegression(1e-2, solver="cg", precision="double"), ["shop"]),  # alone its codes would be summed in float32
    (LogisticRegression(1e-2, l1_ratio=1.0), None),
    (KMeans(3, random_state=1, coding="treatment"), None),
    (KMeans(3, random_state=2, coding="treatment"), None),
    (PCA(2, coding="treatment"), None),
]
LINEAR = [
    (LinearRegression(), None),
    (LinearRegression(errors="HC3"), ["x0", "shop"]),
    (LinearRegression(0.1), ["x2", "x1"]),
    (LinearRegression(0.1, fit_intercept=False), None),
]


@pytest.mark.parametrize(("cases", "label"), [(LOGISTIC, "y"), (LINEAR, "t")], ids=["classes", "numbers"])
@pytest.mark.parametrize("weight", [None, "w"])
def test_models_that_share_passes_are_those_of_fits_alone(cases, label, weight):
    models, subsets = zip(
        *[case for case in cases if weight is None or not isinstance(case[0], KMeans | PCA)], strict=True
    )
    exclude = ["t" if label == "y" else "y", *([] if weight else ["w"])]
    found, passes = passes_of(
        lambda: fit_many(models, TABLE, label=label, subsets=subsets, exclude=exclude, sample_weight=weight)
    )
    assert not found.errors
    assert len(found.plan.parts) == 1
    alone = 0
    for model, subset, fitted in zip(models, subsets, found, strict=True):
        given = {"label": label, "features": subset, "exclude": [] if subset else exclude}
        given |= {"sample_weight": weight} if weight else {}
        single, own = passes_of(lambda m=model, g=given: type(m)(**m.get_params()).fit(TABLE, **g))
        alone = max(alone, own)
        assert close(fitted, single), (model, subset)
        assert fitted.trained_on_ == single.trained_on_
    assert passes == alone


def test_a_plan_says_what_goes_together_and_why_not():
    models = [LogisticRegression(0.1), LogisticRegression(1.0), LogisticRegression(solver="sgd"), LinearRegression()]
    models += [LogisticRegression(nulls="mean"), LogisticRegression(nulls="drop")]
    subsets = [None, ["x0"], None, None, None, ["x0"]]
    plan = explain_many(models, TABLE, label="y", exclude=["shop", "t"], subsets=subsets)
    assert [part.numbers for part in plan.parts] == [(0, 1), (2,), (3,), (4,), (5,)]
    told = str(plan)
    assert "models 0-1: shared passes over 5 columns" in told
    assert "model 2 does not go with those before it: averaged SGD" in told
    assert "model 3 does not go with those before it: its label is another" in told
    assert "model 4 does not go with those before it: it reads column 'x0' otherwise" in told


def test_rows_left_out_for_one_model_are_not_left_out_for_others():
    holes = TABLE.set_column(0, "x0", pa.array([None if k % 7 == 0 else float(k % 5) for k in range(ROWS)]))
    models = [LinearRegression(nulls="drop"), LinearRegression(nulls="drop")]
    found = fit_many(models, holes, label="t", subsets=[["x0", "x1"], ["x1"]])
    assert len(found.plan.parts) == 2
    assert found[0].n_rows_ < found[1].n_rows_ == ROWS


class Wild(LogisticRegression):
    """Loses its way in the middle of training."""

    def _solve(self, training, alphas):
        from braidwater.aggregates import Iteration

        class Lost(Iteration):
            def passes(self):
                yield Moments(training.design, 2)
                raise NumericalError("lost in the second pass")

        return self._run(training, Lost(), passes=2)


def test_a_model_that_fails_is_recorded_and_the_others_go_on():
    models = [LogisticRegression(0.1), Wild(), LogisticRegression(-1.0), LinearRegression(), LogisticRegression(0.1)]
    found = fit_many(models, TABLE, label="y", exclude=["t", "w"])
    assert sorted(found.errors) == [1, 2]
    assert "lost in the second pass" in str(found.errors[1])
    assert isinstance(found.errors[2], OptionError)
    assert [model is None for model in found] == [False, True, True, False, False]
    assert np.array_equal(found[0].coef_, found[4].coef_)


def test_models_for_which_the_label_is_wrong_are_errors_of_their_own():
    found = fit_many(
        [LogisticRegression(), LinearRegression()], TABLE.append_column("one", pa.array([1] * ROWS)), label="one"
    )
    assert isinstance(found.errors[0], LabelError)
    assert found[1] is not None


@pytest.mark.parametrize(
    ("models", "wishes", "told"),
    [([], {}, "at least one model"), ([PCA()], {"subsets": []}, "one for each of the 1 models")],
)
def test_impossible_wishes_are_refused(models, wishes, told):
    with pytest.raises(OptionError, match=told):
        fit_many(models, TABLE, label="y", **wishes)


# -- where nets are trained that share nothing ---------------------------------------------------------------------


def job(seconds: float, epochs: int = 3, rows: int = 100_000) -> Job:
    """A net whose epoch takes so many seconds of one core."""
    times = StepTimes(call=0.0, row=seconds / rows, update=0.0, alone=seconds / rows * 1000)
    work = Work("net", "gang", epochs, 1e3, 40, ("x",), 4000, exact=False, kernel="torch", step_rows=1000, times=times)
    return Job(TableStatistics(rows, 4_000_000), work, REFERENCE, "parquet", 10**9, 10**9)


def test_a_plan_of_many_nets_tells_time_and_bytes_of_each_way_and_takes_the_cheapest():
    many = plan_models([job(10.0)] * 8, 2)
    ways = {way.name: way for way in many.ways}
    assert set(ways) == {"hopper", "tasks", "data"}
    assert ways["hopper"].worker_reads == ways["tasks"].worker_reads / 2 == 2_000_000
    kappa = ThisMachine(REFERENCE).contention(2, 1000)
    assert many.hops.seconds == pytest.approx(8 * 3 * 10 * kappa / 2, rel=0.01)
    assert many.hops.busy > 0.99
    assert many.chosen.name == "hopper"  # as fast as tasks, and each worker reads half
    assert all(word in str(many) for word in ("▸ models hop over parted rows", "a worker reads", "workers are busy"))
    # with an odd number of models whole models leave a worker idle, hops do not
    odd = {way.name: way.seconds for way in plan_models([job(10.0)] * 3, 2).ways}
    assert odd["hopper"] < 0.8 * odd["tasks"]
    # hops cost something: where an epoch takes a moment, whole models are better
    assert plan_models([job(0.001)] * 8, 2).chosen.name == "tasks"
    assert plan_models([job(10.0)] * 8, 2, "data").chosen.name == "data"
    with pytest.raises(OptionError, match="placement"):
        plan_models([job(10.0)], 2, "elsewhere")


def test_nets_that_share_nothing_are_trained_where_the_plan_says_and_learn_the_same():
    models = [net(0, module_arguments={"hidden": [width]}, precision="float64") for width in (3, 4)]
    given = {"label": "y", "exclude": ["t", "w", "shop"]}
    plan = explain_many(models, TABLE, **given)
    assert "models 0-1: share nothing" in str(plan)
    assert "a worker reads" in str(plan)
    dealt = fit_many(models, TABLE, placement="tasks", **given)
    hopped = fit_many(models, TABLE, placement="hopper", **given)
    for model, one, other in zip(models, dealt, hopped, strict=True):
        alone = model.fit(TABLE, **given).module_.state_dict()
        assert all(torch.allclose(one.module_.state_dict()[name], value, atol=1e-12) for name, value in alone.items())
        assert other.strategy_ == "hopper"
        assert other.evaluate(TABLE)["accuracy"] == pytest.approx(one.evaluate(TABLE)["accuracy"], abs=0.05)


# -- stacked nets --------------------------------------------------------------------------------------------------


def net(number: int, **settings: object) -> Trainer:
    kinds = [
        {"optimizer": "adamw", "optimizer_arguments": {"weight_decay": 0.1}},
        {"optimizer": "adamw", "optimizer_arguments": {"betas": (0.8, 0.95)}, "clip_norm": 0.1},
        {"optimizer": "adamw", "schedule": "cosine", "epochs": 4},
        {"optimizer": "sgd", "optimizer_arguments": {"momentum": 0.9, "nesterov": True}},
        {"optimizer": "sgd", "optimizer_arguments": {"momentum": 0.5, "dampening": 0.2, "weight_decay": 0.01}},
        {"optimizer": "sgd", "learning_rate": 0.1},
        {"optimizer": "adam", "optimizer_arguments": {"weight_decay": 0.1}},
    ]
    plain = {"learning_rate": 0.01, "epochs": 2, "batch_size": 256, "strategy": "single", "precision": "float64"}
    plain["module_arguments"] = {"hidden": [8]}
    return Trainer("braidwater.deep.modules:MLP", **(plain | kinds[number % len(kinds)] | settings))


@pytest.mark.parametrize("label", ["y", "t"])
def test_stacked_nets_are_those_of_trainings_alone(label):
    models = [net(k, seed=k // 2, early_stopping=1 if k == 5 else None) for k in range(7)]
    rows, held_out = train_test_split(table(TABLE), 0.2)
    given = {"label": label, "exclude": ["t" if label == "y" else "y"], "validation": held_out}
    found = fit_many(models, rows, sample_weight="w", **given)
    assert not found.errors
    assert sorted(part.numbers for part in found.plan.parts) == [(0, 1, 2), (3, 4, 5)]
    assert "its optimizer is Adam, not AdamW" in str(found.plan)
    for model, fitted in zip(models[:6], found, strict=False):
        alone = model.fit(rows, weight="w", **given)
        for name, tensor in alone.module_.state_dict().items():
            assert torch.allclose(fitted.module_.state_dict()[name], tensor, rtol=0, atol=1e-10), (
                model.optimizer,
                name,
            )
        assert len(alone.history_) == len(fitted.history_)
        for ours, theirs in zip(fitted.history_, alone.history_, strict=True):
            for name in ("loss", "validation_loss", "learning_rate"):
                assert ours[name] == pytest.approx(theirs[name], rel=1e-9), name


def test_stacked_nets_in_float32_are_those_of_trainings_alone_to_a_millionth():
    models = [net(k, precision="float32", epochs=2) for k in (0, 1)]
    found = fit_many(models, TABLE, label="y", exclude=["t"])
    for model, fitted in zip(models, found, strict=True):
        alone = model.fit(TABLE, label="y", exclude=["t"]).module_.state_dict()
        assert all(torch.allclose(fitted.module_.state_dict()[n], v, rtol=0, atol=1e-6) for n, v in alone.items())


class Hidden(torch.nn.Linear):
    """Two of these look alike, and are not."""

    def __init__(self, inputs: int, outputs: int, factor: float = 1.0) -> None:
        super().__init__(inputs, outputs)
        self.factor = factor

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.factor * super().forward(features)


def test_nets_that_a_stack_would_change_stay_apart():
    dropout = {"module_arguments": {"hidden": [8], "dropout": 0.5}}
    models = [net(0), net(0, **dropout), net(0, module_arguments={"hidden": [9]}), net(0, batch_size=64)]
    models += [net(0, accumulate=2), net(0, standardise=False), net(0, optimizer="rmsprop")]
    models += [
        Trainer(Hidden, module_arguments={"factor": factor}, precision="float64", strategy="single", batch_size=256)
        for factor in (1.0, 2.0)
    ]
    plan = explain_many(models, TABLE, label="y")
    assert not plan.parts
    told = [plan.reasons[number] for number in range(len(models))]
    expected = [
        "no other",
        "random",
        "architecture",
        "batch_size",
        "accumulates",
        "otherwise",
        "RMSprop",
        "architecture",
        "more than",
    ]
    assert [w for w, reason in zip(expected, told, strict=True) if w not in reason] == [], told[5:]


def test_a_net_that_fails_leaves_the_stack_and_the_others_go_on():
    models = [net(5), net(5, learning_rate=1e150), net(5)]
    found = fit_many(models, TABLE, label="t")
    assert list(found.errors) == [1]
    assert isinstance(found.errors[1], NumericalError)
    assert "epoch 1" in str(found.errors[1])
    alone = net(5).fit(TABLE, label="t").module_.state_dict()
    assert all(torch.allclose(found[2].module_.state_dict()[n], v, atol=1e-10) for n, v in alone.items())


OPTIMISERS = st.sampled_from(["sgd", "adam", "adamw"])


@given(OPTIMISERS, st.integers(1, 4), st.integers(0, 99), st.booleans())
@settings(max_examples=30)
def test_a_stack_of_optimisers_takes_the_steps_of_torch(kind, models, seed, clipped):
    make = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind]
    draw = np.random.default_rng(seed)
    weights = [torch.nn.Parameter(torch.from_numpy(draw.normal(size=5))) for _ in range(models)]
    own = []
    for parameter in weights:
        chosen = {"lr": float(draw.uniform(0.01, 0.5)), "weight_decay": float(draw.choice([0.0, 0.1]))}
        if kind == "sgd":
            chosen |= {"momentum": float(draw.choice([0.0, 0.9])), "dampening": float(draw.choice([0.0, 0.3]))}
        else:
            chosen |= {"betas": (float(draw.uniform(0, 0.9)), 0.99), "eps": float(draw.choice([1e-8, 1e-3]))}
        own.append(make([parameter], **chosen))
    stack = optimizer_of(own)
    matrix = torch.stack([parameter.detach().clone() for parameter in weights])
    norms = draw.uniform(0.1, 3, models).tolist() if clipped else None
    for _ in range(4):
        gradients = torch.from_numpy(draw.normal(size=(models, 5)))
        for row, (parameter, optimizer) in enumerate(zip(weights, own, strict=True)):
            parameter.grad = gradients[row].clone()
            if norms is not None:
                torch.nn.utils.clip_grad_norm_([parameter], norms[row])
            optimizer.step()
        stack.step(matrix, gradients.clone(), [o.param_groups[0]["lr"] for o in own], norms)
    assert torch.allclose(matrix, torch.stack([parameter.detach() for parameter in weights]), rtol=1e-12, atol=1e-12)


# -- trials in lockstep ---------------------------------------------------------------------------------------------


def test_trials_of_a_grid_are_trained_in_one_scan_and_are_those_of_single_trials():
    space = {"alpha": Choice([1e-4, 1e-3, 1e-2, 1e-1])}
    given = {"label": "y", "exclude": ["t", "w"], "sampler": "grid", "workers": 1}
    fused = search(LogisticRegression(), space, TABLE, fused="lockstep", **given)
    single = search(LogisticRegression(), space, TABLE, fused=False, **given)
    assert [trial.parameters for trial in fused.trials] == [trial.parameters for trial in single.trials]
    assert [trial.value for trial in fused.trials] == pytest.approx([trial.value for trial in single.trials], rel=1e-9)
    assert fused.best_model().coef_ == pytest.approx(single.best_model().coef_, rel=1e-9)
