"""Modules as data: what a program computes is what its module computes, and nothing in it is run but functions of tensors."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from braidwater.deep.modules import MLP
from braidwater.deep.programs import Program, ProgramFactory, export_program
from braidwater.errors import BraidwaterError, OptionError, UnsupportedError


class Residual(nn.Module):
    """Everything that is another thing in evaluation, and a shape that follows from the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 3)
        self.normal, self.drop = nn.BatchNorm1d(8), nn.Dropout(0.3)

    def forward(self, rows):
        hidden = nn.functional.gelu(self.first(rows))
        return self.last(hidden + self.drop(self.normal(hidden))).reshape(rows.shape[0], 3)


class Pictures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.filters, self.last = nn.Conv2d(1, 4, 3), nn.Linear(4 * 5 * 5, 3)

    def forward(self, rows):
        return self.last(nn.functional.max_pool2d(self.filters(rows).relu(), 2).flatten(1))


MODULES = [
    (MLP(5, 3, hidden=[4], dropout=0.5), (5,)),
    (Residual(), (5,)),
    (Pictures(), (1, 12, 12)),
    (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (6, 8)),
]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("module", "shape"), MODULES, ids=lambda one: type(one).__name__)
def test_a_program_computes_what_its_module_computes_and_learns_the_same(module, shape):
    program = Program(*export_program(module, shape))
    optimizers = [torch.optim.SGD(one.parameters(), 0.1) for one in (module, program)]
    for _ in range(3):
        rows = torch.randn(7, *shape)
        for one, optimizer in zip((module, program), optimizers, strict=True):
            torch.manual_seed(1)
            optimizer.zero_grad()
            one.train()(rows).square().mean().backward()
            optimizer.step()
    state = {name.replace(".", "__"): tensor for name, tensor in module.state_dict().items()}
    assert state.keys() == program.state_dict().keys()
    assert all(torch.equal(tensor, program.state_dict()[name]) for name, tensor in state.items())
    with torch.no_grad():
        torch.testing.assert_close(program.eval()(rows), module.eval()(rows), rtol=1e-6, atol=1e-6)
    assert all(torch.equal(tensor, program.state_dict()[name]) for name, tensor in state.items())


@pytest.fixture(scope="module")
def net() -> tuple[str, bytes]:
    return export_program(MLP(5, 3, hidden=[4]), (5,))


FOREIGN = [
    "aten.from_file.default", "aten.set_.source_Storage", "prim.device.default", "os.system", "operator.attrgetter",
    "aten.linear", "aten.__class__.default", "aten.linear.__init__",
]  # fmt: skip


@pytest.mark.parametrize("op", FOREIGN)
def test_only_functions_of_tensors_are_called(net, op):
    document = json.loads(net[0])
    document["nodes"][0]["op"] = op
    with pytest.raises(UnsupportedError, match=op.replace(".", r"\.")):
        Program(json.dumps(document), net[1])


BROKEN = [
    {"nodes": 3}, {"format": 9}, {"held": {"x": "no_such"}}, {"held": {"x": "forward"}}, {"output": {"python": "1"}},
    {"output": {"dtype": "load"}},
]  # fmt: skip


@pytest.mark.parametrize("change", BROKEN)
def test_a_document_that_is_none_is_refused(net, change):
    document = {**json.loads(net[0]), **change}
    with pytest.raises(BraidwaterError):
        Program(json.dumps(document), net[1])(torch.zeros(2, 5))
    with pytest.raises(BraidwaterError):
        Program(net[0], b"PK\x03\x04 a pickle")


def test_a_program_is_for_the_rows_that_it_was_exported_for(net):
    with pytest.raises(OptionError, match=r"rows of shape \[7\]"):
        ProgramFactory(*net)(7, 3)
    with pytest.raises(UnsupportedError, match=r"aten\.sort"):
        export_program(_Sorting(), (5,))


class _Sorting(nn.Module):
    def forward(self, rows):
        return rows.sort(dim=1).values
