"""The laws of strategies. Run them on a strategy of your own::

    @pytest.mark.parametrize("check", STRATEGY_CHECKS, ids=lambda check: check.__name__)
    def test_law(check):
        check(MyStrategy(workers=2))

A check trains a few small modules; a strategy that starts processes takes some seconds for each.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from braidwater.blocks.base import Block, BlockColumn, BlockSchema
from braidwater.blocks.source import BlockSource
from braidwater.blocks.store import BlockStore, MemoryStore, Unit
from braidwater.blocks.windows import RowForm
from braidwater.encoding.design import Design, NumberTerm, design_of
from braidwater.engines.base import Engine
from braidwater.engines.local import LocalEngine
from braidwater.errors import WorkerError
from braidwater.parallel.base import Data, Strategy, Trained, Training
from braidwater.parallel.ensemble import Ensemble, EnsembleModule
from braidwater.parallel.single import Single

UNEVEN_UNITS = (50, 64, 7, 1, 79)  # rows; 201 in all, which neither 2 workers nor a batch of 16 divide
WIDTH = 6
FAILING_CALL = 20  # of the loss, in a worker: 13 steps are an epoch


def check_every_row_counts_once(strategy: Strategy) -> None:
    """A weight of its own for each row, and an optimiser that counts gradients, show how often each row was used.

    An average of weights leaves of each count its worker's share, so counts are compared with each other. Steps of one
    or two rows leave a worker without rows now and then: that must count nothing.
    """
    trained = _train(strategy, *_row_training())
    # over all members of an ensemble
    counts = np.sum([w[:, 0].numpy() for name, w in trained.weights.items() if name.endswith("count.weight")], axis=0)
    expected = 1.0 if strategy.exact else float(np.median(counts))
    # where workers do not wait for each other, a late row may leave half as much in the result; one left out leaves nothing
    low = 0.55 if strategy.reproducible else 0.2
    wrong = np.flatnonzero((counts < low * expected) | (counts > 1.8 * expected))
    assert not len(wrong), (
        f"{strategy}: rows {wrong[:10].tolist()} count {counts[wrong[:10]].tolist()} times in an epoch"
    )
    assert 0 < expected <= 1, f"{strategy}: rows count {expected} times in an epoch"


def check_same_seed_gives_the_same_weights(strategy: Strategy) -> None:
    """Twice the same training: not one bit differs, though the module draws random numbers.

    A strategy whose workers do not wait for each other says that it is not `reproducible`; then this law is not asked of it.
    """
    if not strategy.reproducible:
        return
    training = _mlp_training(dropout=0.1)
    first, second = (_train(strategy, training, _points()) for _ in range(2))
    for name, weights in first.weights.items():
        assert torch.equal(weights, second.weights[name]), (
            f"{strategy}: {name} differs between two runs of the same seed"
        )
    assert [record["loss"] for record in first.history] == [record["loss"] for record in second.history]


def check_exact_strategies_equal_one_process(strategy: Strategy) -> None:
    """In float64 the weights of an exact strategy are those of `Single` to 1e-10."""
    if strategy.exact:
        _assert_same(_trained_mlp(strategy), _trained_mlp(Single()), str(strategy))


def check_the_loss_sinks_and_the_module_is_kept(strategy: Strategy) -> None:
    """The loss sinks from epoch to epoch, is recorded, and the module that was handed in is left as it was."""
    losses = [record["loss"] for record in _trained_mlp(strategy).history]
    assert len(losses) == _mlp_training().epochs
    assert losses[-1] < 0.9 * losses[0], f"{strategy}: losses {losses}"


def check_an_interrupted_training_goes_on_as_if_nothing_had_happened(strategy: Strategy) -> None:
    """A worker fails in the middle of the second epoch; from the checkpoint before, the weights come out the same bit for bit.

    Where runs cannot be repeated, it still goes on to its end.
    """
    whole = _trained_mlp(strategy)
    with TemporaryDirectory(prefix="braidwater-law-") as folder:
        training = replace(_mlp_training(), checkpoint=str(Path(folder) / "checkpoints"), checkpoint_every=5)
        failing = replace(training, loss=_FailsOnce(str(Path(folder) / "failed")))
        try:
            _train(strategy, failing, _points())
        except (WorkerError, _WantedError):
            resumed = _train(strategy, failing, _points())
        else:
            raise AssertionError(f"{strategy}: the error of a worker did not arrive")
    assert [record["epoch"] for record in resumed.history] == [record["epoch"] for record in whole.history]
    if strategy.reproducible:
        for name, weights in whole.weights.items():
            assert torch.equal(weights, resumed.weights[name]), f"{strategy}: {name} differs after an interruption"
        # sums of the losses before and after the checkpoint round otherwise than their sum in one go
        losses = [[record["loss"] for record in found.history] for found in (whole, resumed)]
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-12, err_msg=str(strategy))


STRATEGY_CHECKS: tuple[Callable[[Strategy], None], ...] = (
    check_every_row_counts_once,
    check_same_seed_gives_the_same_weights,
    check_exact_strategies_equal_one_process,
    check_the_loss_sinks_and_the_module_is_kept,
    check_an_interrupted_training_goes_on_as_if_nothing_had_happened,
)


def check_averaging_every_step_equals_all_reduce(averaging: Strategy, all_reduce: Strategy) -> None:
    """With plain SGD the average of steps is the step along the average."""
    training = _mlp_training(momentum=0.0)
    _assert_same(_train(averaging, training, _points()), _train(all_reduce, training, _points()), str(averaging))


def _row_training() -> tuple[Training, dict[str, np.ndarray]]:
    """A training that counts how often each row is used, and its rows."""
    rows = sum(UNEVEN_UNITS)
    training = Training(
        _RowCounter(rows),
        _own_output,
        _CountGradients,
        RowForm(_design(1), dtype="float64"),
        target="number",
        batch_size=2,
        precision="float64",
    )
    return training, {"x0": np.arange(rows, dtype=np.float64), "y": np.zeros(rows)}


class _RowCounter(torch.nn.Module):
    """One weight for each row; the row's number, its only feature, picks it. A second layer lets it be parted in two."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.count = torch.nn.Embedding(rows, 1)
        self.scale = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.count.weight)
        torch.nn.init.ones_(self.scale.weight)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.scale(self.count(features[:, 0].long()))[:, 0]
        return found


class _CountGradients(torch.optim.Optimizer):
    """Adds 1 to each weight that has a gradient."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__(module.parameters(), {"lr": 1.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter += parameter.grad != 0


class _WantedError(Exception):
    """What `_FailsOnce` raises."""


class _FailsOnce:
    """A squared error that fails when it is called for a while, unless the file `mark` says that it has."""

    def __init__(self, mark: str) -> None:
        self.mark = Path(mark)
        self.calls = 0

    def __call__(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls > FAILING_CALL and not self.mark.exists():
            self.mark.touch()
            raise _WantedError
        return _squared_error(output, target)


def _own_output(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return output


def _sgd(module: torch.nn.Module, rate: float, momentum: float = 0.0) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=rate, momentum=momentum)


def _squared_error(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target) ** 2


def _mlp_training(dropout: float = 0.0, momentum: float = 0.9) -> Training:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = torch.nn.Sequential(
            torch.nn.Linear(WIDTH, 8), torch.nn.Tanh(), torch.nn.Dropout(dropout), torch.nn.Linear(8, 1)
        )
    if not dropout:
        del module[2]  # even without effect it would draw numbers
    return Training(
        module,
        _squared_error,
        partial(_sgd, rate=0.05, momentum=momentum),
        RowForm(_design(WIDTH), dtype="float64"),
        target="number",
        epochs=3,
        batch_size=16,
        precision="float64",
        seed=5,
    )


def _points() -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    features = random.standard_normal((WIDTH, sum(UNEVEN_UNITS)))
    label = np.sin(features[0]) + features[1] * 0.5 + 0.1 * random.standard_normal(sum(UNEVEN_UNITS))
    return {**{f"x{place}": column for place, column in enumerate(features)}, "y": label}


def _design(width: int) -> Design:
    names = [f"x{place}" for place in range(width)]
    return design_of([NumberTerm(tuple(names), 0)], names, label="y")


def _train(strategy: Strategy, training: Training, columns: dict[str, np.ndarray]) -> Trained:
    store = uneven_store(columns)
    engine: Engine = LocalEngine(workers=strategy.workers)
    if isinstance(strategy, Ensemble):
        training = replace(training, module=EnsembleModule([training.module, deepcopy(training.module)]))
    return strategy.train(training, Data(store, source=_Ready(store)), engine)


@lru_cache(maxsize=32)
def _trained_mlp(strategy: Strategy) -> Trained:
    """Several checks look at the same training: a strategy that starts processes takes seconds for it."""
    training = _mlp_training()
    before = {name: tensor.clone() for name, tensor in training.module.state_dict().items()}
    trained = _train(strategy, training, _points())
    assert all(torch.equal(before[name], tensor) for name, tensor in training.module.state_dict().items())
    return trained


def uneven_store(columns: dict[str, np.ndarray], units: tuple[int, ...] = UNEVEN_UNITS) -> MemoryStore:
    """A store in memory whose units have `units` rows; `columns` hold the rows one after another."""
    schema = BlockSchema.ordered([BlockColumn(name, c.dtype.name, c.shape[1:]) for name, c in columns.items()])
    found, buffers, begin = [], [], 0
    for number, rows in enumerate(units):
        part = {name: column[begin : begin + rows] for name, column in columns.items()}
        buffers.append(Block.from_arrays(part, schema).buffer)
        found.append(Unit(number, rows, begin))
        begin += rows
    return MemoryStore(schema, found, buffers)


class _Ready(BlockSource):
    """A source whose blocks are there already."""

    def __init__(self, store: BlockStore) -> None:
        self.store = store
        self.encoder = None
        self.cache = "memory"
        self.passes_done = 0
        self.rows_dropped = 0


def _assert_same(one: Trained, other: Trained, what: str) -> None:
    for name, weights in other.weights.items():
        apart = float((one.weights[name] - weights).abs().max())
        assert apart < 1e-10, f"{what}: {name} is {apart} away from that of the other strategy"
