"""All-reduce: what workers exchange, how much of it, through what, and what they refuse. One gang answers most of it."""

import json
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from braidwater.blocks.windows import RowForm
from braidwater.deep.losses import LOSSES
from braidwater.deep.optimizers import OptimizerPlan
from braidwater.encoding.design import NumberTerm, design_of
from braidwater.engines import LocalEngine
from braidwater.engines.local.gang import run_gang
from braidwater.errors import BraidwaterError, OptionError, UnsupportedError
from braidwater.events import Metric, listen
from braidwater.parallel import AllReduce, Data, Single, Training, shared_memory
from braidwater.parallel.all_reduce import AllReduceReplica
from braidwater.parallel.compression import Half, PowerSGD, Threshold
from braidwater.parallel.group import check_alike
from braidwater.parallel.loop import run_epochs
from braidwater.parallel.member_state import join_tensors, split_tensors
from braidwater.parallel.shared_memory import CHUNK, open_shared_memory
from braidwater.testing.strategies import uneven_store

STRATEGIES = {
    "gloo": AllReduce(2, transport="gloo"),
    "shared_memory": AllReduce(2, transport="shared_memory"),
    "bf16": AllReduce(2, compression="bf16"),
    "power_sgd": AllReduce(2, compression=PowerSGD(rank=2)),
    "threshold": AllReduce(2, compression=Threshold()),
}


def digits():
    """Images of digits in parts of unequal size, and a net with batch normalisation."""
    images, labels = load_digits(return_X_y=True)
    names = [f"x{place}" for place in range(64)]
    columns = {name: images[:, place] / 16 for place, name in enumerate(names)}
    store = uneven_store({**columns, "y": labels.astype(np.uint8)}, (900, 600, 297))
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 10))
    form = RowForm(design_of([NumberTerm(tuple(names), 0)], names, label="y"))
    loss = LOSSES["cross_entropy"].function
    return Training(module, loss, OptimizerPlan("sgd", 0.1), form, epochs=10, batch_size=64), Data(store)


def train(member, strategy):
    """A training inside a gang: the loss of each epoch, and the bytes that this worker has sent."""
    replica = AllReduceReplica(member, strategy)
    trained = run_epochs(*digits(), replica)
    return [record["loss"] for record in trained.history], replica.bytes_exchanged


def sums(member):
    """What shared memory makes of numbers, beside the sum in order of rank."""
    memory = open_shared_memory()
    lengths, dtypes = (1, 3, 1001, CHUNK // 4 + 1), (torch.float32, torch.float64)
    for shared_memory._FEW in (3, 1):  # each adds up all; each adds up its part, as more than three do
        for length, dtype in product(lengths, dtypes):
            of_all = [
                torch.randn(length, dtype=dtype, generator=torch.Generator().manual_seed(rank)) for rank in range(2)
            ]
            mine = of_all[member.rank].clone()
            memory.sum(mine, 0.5)
            assert torch.equal(mine, (of_all[0] + of_all[1]) * 0.5), (length, dtype)
    memory.seconds = 0.2
    try:
        if member.rank == 0:
            memory.sum(torch.ones(5))
    except BraidwaterError as error:
        return str(error)


def messages(member):
    """Tensors of all sizes, to some and to none, between sums: what came, beside what was sent."""
    memory = open_shared_memory()
    room = CHUNK // member.size

    def sent(turn, source, target):
        """Worker `source` says nothing to `target` in every third exchange."""
        if (turn + source + 2 * target) % 3 == 0:
            return None
        random = torch.Generator().manual_seed(100 * turn + 10 * source + target)
        return torch.randint(0, 255, (lengths[turn] - source,), dtype=torch.uint8, generator=random)

    lengths = [5, room + 3, room, 17, 3 * room + 5, 9, 64]
    others = [rank for rank in range(member.size) if rank != member.rank]
    for few in (member.size, member.size - 1):
        torch.distributed.barrier()  # workers change their manners together
        shared_memory._FEW = few
        for turn, length in enumerate(lengths):
            sends = {to: sent(turn, member.rank, to) for to in others}
            wanted = {of: sent(turn, of, member.rank) for of in others}
            found = {of: torch.empty_like(tensor) for of, tensor in wanted.items() if tensor is not None}
            memory.swap({to: tensor for to, tensor in sends.items() if tensor is not None}, found, length)
            assert all(torch.equal(found[of], wanted[of]) for of in found), (turn, member.rank)
            if turn % 2:
                ranks = torch.full((3,), float(member.rank))
                memory.sum(ranks)
                assert ranks.tolist() == [sum(range(member.size))] * 3
    return True


class Exchanged:
    """A module whose gradients are exchanged without ever a step, so that what is sent can be added up."""

    def __init__(self, compression, state=None):
        torch.manual_seed(1)
        self.module = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 5)).double()
        self.exchange = compression.exchange(self.module)
        if state is not None:
            self.exchange.load_state(state)
        self.wrapped = DistributedDataParallel(self.module, gradient_as_bucket_view=True)
        self.wrapped.register_comm_hook(self.exchange, lambda exchange, bucket: exchange(bucket))

    def gradients(self, step, rank):
        """What the workers agree on as the gradient of a step."""
        random = torch.Generator().manual_seed(100 * step + rank)
        self.module.zero_grad()
        self.wrapped(torch.randn(8, 20, generator=random, dtype=torch.float64)).square().mean().backward()
        return {name: p.grad.clone() for name, p in self.module.named_parameters()}


def added_up(member, compression):
    """Sent, left in the residuals of both workers, and the gradients that were to be sent: each summed over eight steps."""
    one, exact = Exchanged(compression), Exchanged(PowerSGD(start_step=1000))
    sent, wanted = ({name: torch.zeros_like(p) for name, p in one.module.named_parameters()} for _ in range(2))
    for step in range(8):
        for total, found in ((sent, one.gradients(step, member.rank)), (wanted, exact.gradients(step, member.rank))):
            for name in total:
                total[name] += found[name]
    for name, residual in one.exchange.state()["residuals"].items():
        dist.all_reduce(residual)
        # a residual is of a contribution to the mean (threshold) or of a gradient (PowerSGD)
        sent[name] += residual if isinstance(compression, Threshold) else residual / 2
    return max(float((sent[name] - wanted[name]).abs().max()) for name in sent)


def resumed(member, compression):
    """Whether an exchange that went through JSON goes on bit for bit."""
    one = Exchanged(compression)
    for step in range(3):
        one.gradients(step, member.rank)
    plain, tensors = split_tensors(one.exchange.state(), "replica")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    other = Exchanged(compression, join_tensors(json.loads(json.dumps(plain)), tensors))
    for step in range(3, 6):
        expected, found = one.gradients(step, member.rank), other.gradients(step, member.rank)
        if not all(torch.equal(expected[name], found[name]) for name in expected):
            return False
    return True


class LeavesOut(nn.Module):
    """Two layers, of which the workers from `first` on use one."""

    def __init__(self, first=0):
        super().__init__()
        self.first = first
        self.used, self.unused = nn.Linear(64, 10), nn.Linear(64, 10)

    def forward(self, features):
        output = self.used(features)
        return output if dist.get_rank() >= self.first else output + self.unused(features)


def refusals(member):
    """What is said of modules that cannot be trained together."""
    found = {}
    training, data = digits()
    unused = Training(**{**vars(training), "module": LeavesOut(), "epochs": 1})
    for name, run in (
        ("unused", lambda: run_epochs(unused, data, AllReduceReplica(member, AllReduce(2)))),
        ("sizes", lambda: check_alike(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4 + member.rank)))),
        ("more", lambda: check_alike(nn.Sequential(*[nn.ReLU(), nn.Linear(2, 2)][: 1 + member.rank]))),
    ):
        try:
            run()
        except UnsupportedError as error:
            found[name] = str(error)
    looked_for = AllReduce(2, find_unused_parameters=True)
    found["found"] = run_epochs(unused, data, AllReduceReplica(member, looked_for)).history[-1]["loss"]
    return found


@pytest.fixture(scope="module")
def gang():
    def member(told):
        keeping = (Threshold(1e-3, None), Threshold(1e-2, 0.05), PowerSGD(rank=1), PowerSGD(rank=2, start_step=2))
        return {
            "trained": {name: train(told, strategy) for name, strategy in STRATEGIES.items()},
            "sums": sums(told),
            "added up": {str(compression): added_up(told, compression) for compression in keeping},
            "resumed": {str(compression): resumed(told, compression) for compression in keeping},
            "refusals": refusals(told),
        }

    return run_gang(member, 2, timeout=60)


def test_shared_memory_sums_in_order_of_rank_and_names_who_does_not_come(gang):
    assert gang[0]["sums"] == (
        "An exchange through shared memory timed out: worker 1 of 2 did not come to it, worker 0 waited 0.2 s."
    )
    assert gang[1]["sums"] is None


@pytest.mark.parametrize("workers", [2, 4])
def test_messages_through_shared_memory_come_whole(workers):
    assert run_gang(messages, workers, timeout=60) == [True] * workers


def test_both_transports_learn_what_one_worker_learns(gang):
    alone = [record["loss"] for record in Single().train(*digits(), LocalEngine(1)).history]
    for name in ("gloo", "shared_memory"):
        np.testing.assert_allclose(gang[0]["trained"][name][0], alone, rtol=1e-4)


def test_bytes_are_counted_and_compression_saves_them(gang):
    training, data = digits()
    steps = training.epochs * -(-data.rows.rows // training.batch_size)
    numbers = sum(p.numel() for p in training.module.parameters())
    sent = {name: count for name, (_, count) in gang[0]["trained"].items()}
    assert sent["gloo"] == sent["shared_memory"] == 4 * numbers * steps
    assert sent["bf16"] == 2 * numbers * steps
    thin = 2 * (96 + 64 + 64 + 96 + 10 + 64) + 96 + 64 + 10
    assert sent["power_sgd"] == 4 * thin * steps
    assert sent["threshold"] < sent["gloo"] / 50


@pytest.mark.parametrize("name", ["bf16", "power_sgd", "threshold"])
def test_compressed_training_learns(gang, name):
    plain, compressed = (gang[0]["trained"][which][0] for which in ("gloo", name))
    assert compressed[-1] < 0.5 * compressed[0]
    assert compressed[-1] < 1.5 * plain[-1] + 0.1


def test_what_was_not_sent_is_kept_to_the_last_bit_of_it(gang):
    for compression, apart in gang[0]["added up"].items():
        assert apart < 1e-12, compression


def test_compression_goes_on_from_a_checkpoint_bit_for_bit(gang):
    assert gang[0]["resumed"] == dict.fromkeys(gang[0]["resumed"], True)
    assert gang[1]["resumed"] == gang[0]["resumed"]


def test_modules_that_cannot_be_trained_together_are_refused_by_name(gang):
    found = gang[0]["refusals"]
    assert "does not depend on the parameters unused.weight, unused.bias" in found["unused"]
    assert "find_unused_parameters=True" in found["unused"]
    assert "worker 0 has 1.weight (4, 4) torch.float32, worker 1 has 1.weight (5, 4) torch.float32" in found["sizes"]
    assert "worker 0 has nothing, worker 1 has 1.weight (2, 2)" in found["more"]
    assert found["found"] < 2.4


def test_a_parameter_that_one_worker_leaves_out_is_an_error_and_no_hang():
    training, data = digits()
    training = Training(**{**vars(training), "module": LeavesOut(first=1)})
    heard = []
    with listen(heard.append), pytest.raises(UnsupportedError, match=r"worker 1 .* unused.weight, unused.bias"):
        AllReduce(2).train(training, data, LocalEngine(2))


def test_bytes_are_reported_for_each_epoch():
    training, data = digits()
    heard = []
    with listen(heard.append):
        AllReduce(2, compression="fp16").train(Training(**{**vars(training), "epochs": 2}), data, LocalEngine(2))
    sent = [event.value for event in heard if isinstance(event, Metric) and event.name == "bytes_exchanged"]
    assert sent == [2 * 29 * sum(p.numel() for p in training.module.parameters())] * 2


@pytest.mark.parametrize(
    "make",
    [
        partial(AllReduce, transport="pigeon"),
        partial(AllReduce, compression="zip"),
        partial(AllReduce, compression="fp16", transport="shared_memory"),
        partial(Half, "fp8"),
        partial(PowerSGD, rank=0),
        partial(PowerSGD, start_step=-1),
        partial(Threshold, 0.0),
        partial(Threshold, target_sparsity=1.5),
    ],
)
def test_impossible_options_are_refused(make):
    with pytest.raises(OptionError, match="is not possible"):
        make()


def test_a_loss_scale_and_residuals_do_not_go_together():
    training, data = digits()
    with pytest.raises(UnsupportedError, match="loss scale"):
        AllReduce(2, compression="threshold").train(
            Training(**{**vars(training), "precision": "fp16"}), data, LocalEngine(2)
        )
