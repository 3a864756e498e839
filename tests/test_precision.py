"""Mixed precision, activation checkpointing, and the way back from a loss that is not a number."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from braidwater.deep import Trainer
from braidwater.deep.modules import MLP
from braidwater.errors import NumericalError, OptionError
from braidwater.events import RolledBack, listen
from braidwater.parallel import AllReduce
from braidwater.parallel.mixed_precision import LossScale
from braidwater.parallel.recompute import recompute_layers


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    random = np.random.default_rng(1)
    features = random.standard_normal((400, 4)).astype(np.float32)
    label = (features[:, 0] + 0.5 * features[:, 1] > 0).astype(np.int64)
    return pa.table({f"x{i}": column for i, column in enumerate(features.T)} | {"late": label})


def trainer(**settings: object) -> Trainer:
    defaults = {"strategy": "single", "epochs": 4, "batch_size": 32, "learning_rate": 0.01}
    return Trainer(MLP, **{"module_arguments": {"hidden": [16, 8]}, **defaults, **settings})


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_what_float32_learns(rows: pa.Table, precision: str) -> None:
    whole = trainer().fit(rows, label="late")
    half = trainer(precision=precision).fit(rows, label="late")
    losses = [[record["loss"] for record in model.history_] for model in (whole, half)]
    assert losses[1] != losses[0], "the forward pass ran in float32"
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.05)
    assert next(half.module_.parameters()).dtype == torch.float32


def test_the_names_of_other_libraries_are_understood() -> None:
    assert trainer(precision="fp32").precision == "float32"
    with pytest.raises(OptionError, match="bf16"):
        trainer(precision="int8")


def test_a_gradient_that_overflows_halves_the_scale_and_leaves_the_step_out() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    scale = LossScale(initial=8.0, patience=2)
    parameter.grad = torch.tensor([16.0, float("inf")])
    assert not scale.unscale([parameter])
    scale.update(False)
    assert scale.value == 4.0
    for _ in range(2):
        parameter.grad = torch.tensor([8.0, 4.0])
        assert scale.unscale([parameter])
        assert parameter.grad.tolist() == [2.0, 1.0]
        scale.update(True)
    assert scale.value == 8.0


def test_a_loss_scale_too_large_for_fp16_costs_steps_and_not_the_training(
    rows: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LossScale.__init__, "__defaults__", (2.0**40, 2000))
    model = trainer(precision="fp16", epochs=6).fit(rows, label="late")
    losses = [record["loss"] for record in model.history_]
    assert all(np.isfinite(losses))
    assert losses[-1] < 0.5 * losses[0]


def test_layers_computed_again_give_the_same_weights_and_keep_less(rows: pa.Table) -> None:
    plain, again = (trainer(module_arguments={"hidden": [16, 8], "dropout": 0.2}, recompute=r) for r in (False, True))
    plain.fit(rows, label="late")
    again.fit(rows, label="late")
    for name, weights in plain.module_.state_dict().items():
        assert torch.equal(again.module_.state_dict()[name], weights), name

    def kept(recompute: bool) -> int:
        module = torch.nn.Sequential(*(torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh()) for _ in range(6)))
        found = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal found
            found += tensor.numel() * (not isinstance(tensor, torch.nn.Parameter))
            return tensor

        if recompute:
            recompute_layers(module, ["?"])
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            module(torch.randn(32, 64)).sum().backward()
        return found

    assert kept(True) < kept(False)


def test_a_pattern_that_names_no_layer_is_refused(rows: pa.Table) -> None:
    with pytest.raises(OptionError, match="layers' names"):
        trainer(recompute=["encoder.*"]).fit(rows, label="late")


class Explodes(torch.nn.Module):
    """Its weights grow without bound at a learning rate above 1, as those of steepest descent on a steep parabola do."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((inputs,), 1e3))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return (features * self.weight).sum(1) + (self.weight**2).sum() ** 2


@pytest.mark.parametrize("strategy", ["single", AllReduce(2)])
def test_a_loss_that_is_not_finite_goes_back_to_the_checkpoint_at_half_the_rate(strategy: object) -> None:
    rows = pa.table({"x": np.linspace(-1, 1, 64), "y": np.linspace(-1, 1, 64)})

    def model(**settings: object) -> Trainer:
        return Trainer(
            Explodes,
            strategy=strategy,
            loss="mse",
            optimizer="sgd",
            batch_size=16,
            epochs=3,
            **{"learning_rate": 4e-19, **settings},
        )

    if strategy == "single":  # starting a gang takes seconds
        with pytest.raises(NumericalError, match="over rows"):
            model().fit(rows, label="y")
        with pytest.raises(NumericalError):
            model(learning_rate=1e-11, max_rollbacks=1).fit(rows, label="y")
    seen: list[RolledBack] = []
    with listen(lambda event: seen.append(event) if isinstance(event, RolledBack) else None):
        recovered = model(max_rollbacks=5).fit(rows, label="y")
    assert seen
    assert [event.rate_factor for event in seen] == [0.5**n for n in range(1, len(seen) + 1)]
    assert np.isfinite(recovered.history_[-1]["loss"])


class TwoOutputs(torch.nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(inputs, outputs)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.layer(features), features


def test_a_module_whose_output_is_no_tensor_is_refused_before_anything_runs(rows: pa.Table) -> None:
    with pytest.raises(OptionError, match="gives a tuple"):
        Trainer(TwoOutputs).fit(rows, label="late")
