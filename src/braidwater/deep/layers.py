"""A module as the planner sees it: its layers with their share of the time, their bytes, and what parting them would send."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from braidwater.errors import UserError
from braidwater.parallel.pipeline import stages
from braidwater.parallel.spatial.halo import predict_halo_bytes
from braidwater.parallel.spatial.regions import Rehearsal
from braidwater.parallel.spatial.rows import Rows
from braidwater.parallel.spatial.strategy import InRegions
from braidwater.parallel.tensor_parallel.plan import Style, make_plan
from braidwater.planner.base import Layer

_REPEATS = 6
_PAIR = 2  # workers that the messages are counted for
PASSING = 6.0  # operations that a core computes while it moves a byte of an activation forward and back


@dataclass
class _Call:
    """What was seen of a layer in a forward pass."""

    module: nn.Module
    input: int = 0
    output: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Layers:
    """The layers of a module, and the operations of a forward pass on one row."""

    layers: tuple[Layer, ...]
    flops: float = 0.0
    activations: int = 0  # bytes of all outputs, a row


def find_layers(module: nn.Module, features: torch.Tensor, *, timed: bool = False) -> Layers:
    """The layers of `module` in the order in which `features` ``(rows, ...)`` pass them.

    Shares are of times measured forward where `timed`, else of counted operations and bytes.
    """
    rows = len(features)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        calls = _calls(module, features)
    if timed:
        costs = _fastest(module, features)
    else:
        flops = counter.get_flop_counts()
        costs = [
            sum(flops.get(f"{type(module).__name__}.{name}", {}).values()) + PASSING * call.output
            for name, call in calls.items()
        ]
    costs = [
        cost * _passes(call, first=place == 0)
        for place, (cost, call) in enumerate(zip(costs, calls.values(), strict=True))
    ]
    whole = sum(costs) or 1.0
    styles, halos, cuts = _styles(module), _halos(module, features[:1]), _cuts(module)
    layers = []
    inside = False  # between a layer parted by columns and the one by rows that follows it
    for place, (name, call) in enumerate(calls.items()):
        style = styles.get(name)
        inside = style == "column" or (inside and style is None)
        share = costs[place] / whole
        found = _layer(name, _block(cuts, name), call, share, rows, style, halos.get(name), place == 0)
        layers.append(replace(found, parted_output=inside))
    return Layers(tuple(layers), counter.get_total_flops() / rows, sum(layer.output for layer in layers))


def _fastest(module: nn.Module, features: torch.Tensor) -> list[float]:
    """Seconds of each layer's forward pass, the fastest of some: what others on the machine do is not the layer's."""
    with torch.no_grad():
        runs = [[call.seconds for call in _calls(module, features).values()] for _ in range(_REPEATS)]
    return [min(taken) for taken in zip(*runs, strict=True)]


def _passes(call: _Call, first: bool) -> int:
    """Forward, and as much again for the gradients of the weights, and for those of the inputs."""
    return 1 + any(True for _ in call.module.parameters()) + (not first)


def _layer(
    name: str, block: str, call: _Call, share: float, rows: int, style: Style | None, halo: int | None, first: bool
) -> Layer:
    weights = list(call.module.parameters())
    matrix = max((p for p in weights if p.ndim > 1), key=torch.Tensor.numel, default=None)
    exchanged, messages = _exchanged(call, style, first)
    return Layer(
        name=name,
        share=share,
        parameters=sum(p.nbytes for p in weights),
        output=call.output // rows,
        sides=(0, 0) if matrix is None else (len(matrix), matrix[0].numel()),
        parted=style is not None,
        exchanged=exchanged // rows,
        messages=messages,
        regions=halo is not None,
        halo=halo or 0,
        block=block,
    )


def _cuts(module: nn.Module) -> tuple[str, ...]:
    """The layers before which a pipeline can cut; none where it cannot follow the forward pass."""
    try:
        return stages.find_layers(module, stages.trace(module)).names
    except UserError:
        return ()


def _block(cuts: tuple[str, ...], name: str) -> str:
    """What a pipeline moves as a whole: the layer itself, or the one around it; "" for what goes with the layer before it."""
    return next((cut for cut in cuts if name == cut or name.startswith(f"{cut}.")), "")


def _exchanged(call: _Call, style: Style | None, first: bool) -> tuple[int, int]:
    """Bytes that a parted layer sums up over the workers, forward and backward, and in how many messages.

    The inputs of the first layer need no gradient. Half an all-reduce is an all-gather.
    """
    match style:
        case "column":
            return (0, 0) if first else (call.input, 1)
        case "row" | "embedding":
            return call.output, 1
        case "heads":
            return call.output + call.input, 2
        case "single":
            by_inputs = call.input >= call.output
            backward = 0 if first else call.input // 2 if by_inputs else call.input
            return (call.output if by_inputs else call.output // 2) + backward, 1 if first else 2
    return 0, 0


def _styles(module: nn.Module) -> dict[str, Style]:
    """How tensor parallelism would part the layers by itself; empty where it can part none."""
    try:
        return make_plan(module, "auto", _PAIR).styles
    except UserError:
        return {}


def _halos(module: nn.Module, features: torch.Tensor) -> dict[str, int]:
    """Bytes of a row that each layer that works by regions passes over a border between two, forward and backward."""
    rehearsal = Rehearsal(_PAIR)
    if features.ndim < 3 or not features.is_floating_point():
        return {}
    found: dict[str, int] = {}
    known: dict[str, int] = {}

    def before(name: str, _inputs: Any) -> None:
        known[name] = len(rehearsal.layers)

    def after(name: str, _inputs: Any, output: Any) -> None:
        if isinstance(output, Rows):
            sent = predict_halo_bytes(rehearsal.layers[known[name] :], _PAIR)
            found[name] = max(sent)

    try:
        with _hooked(module, before, after):
            InRegions(module, rehearsal)(features)
    except (UserError, RuntimeError, ValueError, TypeError):  # a module that cannot be computed by rows
        return {}
    return found


def _calls(module: nn.Module, features: torch.Tensor) -> dict[str, _Call]:
    """The layers that a forward pass calls, in order: bytes in and out, and seconds."""
    calls: dict[str, _Call] = {}
    begun: dict[str, float] = {}
    layers = dict(module.named_modules())

    def before(name: str, inputs: Any) -> None:
        begun[name] = time.perf_counter()

    def after(name: str, inputs: Any, output: Any) -> None:
        call = calls.setdefault(name, _Call(layers[name]))
        call.seconds += time.perf_counter() - begun[name]
        call.input += sum({id(x): x.nbytes for x in inputs if _is_tensor(x)}.values())  # attention: thrice the same
        call.output += sum(x.nbytes for x in (output if isinstance(output, tuple) else (output,)) if _is_tensor(x))

    with _hooked(module, before, after):
        module(features)
    return calls


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


@contextmanager
def _hooked(
    module: nn.Module, before: Callable[[str, Any], None], after: Callable[[str, Any, Any], None]
) -> Iterator[None]:
    """Call functions around each layer of a module: those without layers inside, and attention as a whole."""
    handles = []
    for name, layer in module.named_modules():
        if _is_layer(layer) and not _inside_attention(module, name):
            handles.append(layer.register_forward_pre_hook(lambda _, inputs, name=name: before(name, inputs)))
            handles.append(
                layer.register_forward_hook(lambda _, inputs, output, name=name: after(name, inputs, output))
            )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_layer(layer: nn.Module) -> bool:
    return isinstance(layer, nn.MultiheadAttention) or not any(True for _ in layer.children())


def _inside_attention(module: nn.Module, name: str) -> bool:
    parent = name.rpartition(".")[0]
    return bool(parent) and isinstance(module.get_submodule(parent), nn.MultiheadAttention)
