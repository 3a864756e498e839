"""Convolution nets in regions of rows compute what the whole net computes."""

import random

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from braidwater.deep.modules import CNN
from braidwater.engines.local.gang import run_gang
from braidwater.errors import UnsupportedError
from braidwater.parallel import SpatialParallel
from braidwater.parallel.grid import Grid
from braidwater.parallel.model_replica import SPATIAL
from braidwater.parallel.parts import cut
from braidwater.parallel.spatial import Window, halo_layers, predict_halo_bytes
from braidwater.parallel.spatial.halo import inside, moved, needs
from braidwater.parallel.spatial.regions import Regions
from braidwater.parallel.spatial.strategy import InRegions, SpatialReplica
from braidwater.parallel.talk import Talk
from model_parallel import adam, alone, apart, data, in_gang, rows, training

windows = st.builds(
    Window, st.integers(1, 7), st.integers(1, 4), st.integers(0, 4), st.integers(0, 4), st.integers(1, 3)
)


@given(windows, st.integers(1, 40), st.integers(1, 6))
def test_the_rows_that_are_needed_are_those_that_outputs_touch(window, height, workers):
    if window.outputs(height) < workers or height < workers:
        return
    for part, needed in enumerate(needs(window, height, workers)):
        touched = {
            out * window.stride - window.before + tap * window.dilation
            for out in range(*cut(window.outputs(height), part, workers))
            for tap in range(window.kernel)
        }
        outputs = cut(window.outputs(height), part, workers)
        assert window.inputs(outputs) == (min(touched), max(touched) + 1)
        assert touched & set(range(height)) <= set(range(*needed))
        asked = [moved(height, needs(window, height, workers), source, part) for source in range(workers)]
        assert sum(max(end - begin, 0) for begin, end in asked) == needed[1] - needed[0]


@given(windows, st.integers(1, 40))
def test_the_height_of_an_output_is_that_of_torch(window, height):
    padded = height + window.before + window.after
    if padded < window.dilation * (window.kernel - 1) + 1:
        return
    convolved = functional.conv1d(
        torch.zeros(1, 1, padded), torch.zeros(1, 1, window.kernel), stride=window.stride, dilation=window.dilation
    )
    assert window.outputs(height) == convolved.shape[2]
    assert inside(window.inputs((0, window.outputs(height))), height)[0] >= 0


class Residual(nn.Module):
    """Everything that a net writes as plain Python: sums, concatenation, gates, in-place operations, a mean at the end."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 5, padding=2, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding="same", dilation=2, groups=2)
        self.gate = nn.Conv2d(4, 4, 1)
        self.scale = nn.Parameter(torch.full((4, 1, 1), 0.7))
        self.where = nn.Parameter(torch.linspace(0.5, 1.5, 7)[:, None])
        self.groups = nn.GroupNorm(2, 8)
        self.down = nn.Conv2d(8, 5, 3, stride=2, padding=1, padding_mode="reflect")
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = functional.relu(self.norm(self.first(x)), inplace=True)
        found = self.second(x) * self.scale + x
        found += x * torch.sigmoid(self.gate(functional.adaptive_avg_pool2d(x, 1)))
        found = self.groups(torch.cat([found * self.where, functional.dropout(x, 0.3, self.training)], 1))
        found = functional.avg_pool2d(functional.max_pool2d(self.down(found), 3, 1, 1), 2, 1)
        assert found.shape[2] == found.size(2) == 3
        return self.head(found.mean((2, 3)))


class PerPixel(nn.Module):
    """A net whose map stays in regions to its end, transposed convolution included; the last rows are summed by hand."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 3, 3, 2, 1), nn.ELU(), nn.ConvTranspose2d(3, 3, 2, 2), nn.Conv2d(3, 3, 3)
        )

    def forward(self, x):
        return self.layers(x).flatten(2).logsumexp(2)


SHAPE = (2, 7, 5)
CASES = {
    "residual": training(Residual, image="pixels", weights=True, clip_norm=0.5),
    "in pieces": training(Residual, image="pixels", accumulate=2, optimizer=adam),
    "per pixel": training(PerPixel, image="pixels"),
    "cnn": training(lambda: CNN(SHAPE, 3, channels=(4, 5, 6)), image="pixels"),
    "float32": training(lambda: CNN(SHAPE, 3), image="pixels", precision="float32"),
}


@pytest.fixture(scope="module")
def found():
    stores = data(rows(image_shape=SHAPE), rows(image_shape=SHAPE, units=(8, 9)))
    cases = {name: (made, stores) for name, made in CASES.items()}
    return in_gang(2, lambda member, _: SpatialReplica(member, Grid({SPATIAL: 2})), cases), alone(cases)


@pytest.mark.parametrize("name", CASES)
def test_training_equals_one_process(found, name):
    parted, whole = found
    assert apart(parted[name], whole[name]) < (1e-6 if name == "float32" else 1e-10)


def any_layer(draw):
    """A convolution or pooling of 4 channels, of any form."""
    kernel = draw.choice([1, 2, 3, 5, 7]), draw.choice([1, 2, 3])
    stride = draw.choice([1, 1, 2, 3]), draw.choice([1, 2])
    padding = draw.randint(0, kernel[0] // 2), draw.randint(0, kernel[1] // 2)
    kind = draw.choice(["conv", "conv", "conv", "max", "mean", "norm"])
    if kind == "conv":
        dilation = draw.choice([1, 2, 3]), draw.choice([1, 2])
        padding = draw.randint(0, 8), draw.randint(0, 3)
        return nn.Conv2d(4, 4, kernel, stride, padding, dilation, groups=draw.choice([1, 2, 4]))
    if kind == "max":
        return nn.MaxPool2d(kernel, stride, padding, dilation=1)
    if kind == "mean":
        return nn.AvgPool2d(kernel, stride, padding, count_include_pad=draw.random() < 0.7)
    return nn.BatchNorm2d(4)


def any_net(number):
    """Three layers and a picture; None where the picture is too small for them."""
    draw = random.Random(number)
    torch.manual_seed(number)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), *(any_layer(draw) for _ in range(3))).double()
    picture = torch.randn(2, 2, draw.randint(3, 17), draw.randint(6, 12), dtype=torch.float64, requires_grad=True)
    try:
        return net, picture, net(picture)
    except RuntimeError:
        return None


def gradients(net, picture, output):
    (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)).sum().backward()
    return [picture.grad, *(p.grad for p in net.parameters())]


def compare_nets(told, numbers):
    """For each net: the largest difference of output and gradients, and the halo bytes predicted and sent."""
    differences, regions = {}, Regions(Talk(dist.group.WORLD))
    for number in numbers:
        if (whole := any_net(number)) is None:
            continue
        expected = [whole[2].detach(), *gradients(*whole)]
        net, picture, _ = any_net(number)
        predicted = predict_halo_bytes(halo_layers(net, picture, told.size), told.size)[told.rank]
        regions.halo_bytes = 0
        net, picture, _ = any_net(number)  # the rehearsal left running statistics
        output = InRegions(net, regions)(picture)
        actual = [output.detach(), *gradients(net, picture, output)]
        for gradient in actual[1:]:
            dist.all_reduce(gradient)
            gradient /= told.size
        apart = max(float((a - e).abs().max()) for a, e in zip(actual, expected, strict=True))
        differences[number] = apart, predicted, regions.halo_bytes
    return differences


@pytest.fixture(scope="module")
def nets():
    return run_gang(lambda told: compare_nets(told, range(150)), 3)


def test_any_net_in_regions_equals_the_whole_one(nets):
    assert len(nets[0]) > 50
    assert {number: found for number, found in nets[0].items() if found[0] > 1e-10} == {}


def test_the_bytes_of_halos_are_those_predicted(nets):
    assert sum(predicted for _, predicted, _ in nets[1].values()) > 0
    for found in nets:
        assert {number: sent for number, (_, *sent) in found.items() if sent[0] != sent[1]} == {}


def test_layers_that_are_computed_twice_are_refused():
    made = training(lambda: CNN(SHAPE, 3), image="pixels", recompute=True)
    with pytest.raises(UnsupportedError, match="recompute=False"):
        SpatialParallel().train(made, data(rows(image_shape=SHAPE)), None)
