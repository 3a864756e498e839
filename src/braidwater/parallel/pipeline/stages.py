"""A module as a sequence of layers, and its stages: the layers between two cuts, with the values that cross the cuts."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import fx, nn

from braidwater.errors import OptionError, UnsupportedError
from braidwater.parallel.pipeline.layer_random import reseed

ADVICE = (
    "Write it as nn.Sequential, give it a method pipeline_stages() that names its submodules in the order in which they "
    "follow each other, or use another strategy."
)


def trace(module: nn.Module) -> fx.Graph:
    """The forward pass as a graph whose layers are calls of submodules.

    A module that has `pipeline_stages` is the chain of the submodules that it names; any other is traced (torch.fx), so its
    forward may be any straight code without decisions on values of tensors.
    """
    named = getattr(module, "pipeline_stages", None)
    if named is not None:
        return _chain(named())
    try:
        return _Tracer().trace(module)
    except Exception as error:  # whatever plain Python raises at values that are not there yet
        raise UnsupportedError(
            f"Pipeline cannot follow the forward pass of {type(module).__name__}: {error}. {ADVICE}"
        ) from error


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # a layer that is computed a second time (recompute) has a forward of its own, and stays one
        return "forward" in vars(m) or super().is_leaf_module(m, module_qualified_name)


def _chain(names: Sequence[str]) -> fx.Graph:
    graph = fx.Graph()
    value = graph.placeholder("features")
    for name in names:
        value = graph.call_module(name, (value,))
    graph.output(value)
    return graph


@dataclass(frozen=True)
class Layers:
    """The layers of a traced module: for each its name, and the nodes of the graph from it to the next one."""

    graph: fx.Graph
    names: tuple[str, ...]
    nodes: tuple[tuple[fx.Node, ...], ...]


def find_layers(module: nn.Module, graph: fx.Graph, together: Collection[str] = ()) -> Layers:
    """Cut the graph before each call of a submodule with parameters; what has none belongs to the layer before it.

    So do those named `together`.
    """
    names: list[str] = []
    nodes: list[list[fx.Node]] = [[]]
    for node in graph.nodes:
        if node.op in ("placeholder", "output", "get_attr"):
            continue
        if node.op == "call_module" and _has_parameters(module, node) and node.target not in together:
            if names:
                nodes.append([])
            names.append(str(node.target))
        nodes[-1].append(node)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UnsupportedError(
            f"Layer {twice[0]!r} is called more than once in a forward pass, and a pipeline cannot be cut between the calls. "
            f"{ADVICE}"
        )
    return Layers(graph, tuple(names), tuple(map(tuple, nodes)))


def _has_parameters(module: nn.Module, node: fx.Node) -> bool:
    return any(True for _ in module.get_submodule(str(node.target)).parameters())


@dataclass(frozen=True)
class Form:
    """What a tensor of the forward pass looks like for one micro-batch."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    gradient: bool

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def example(self) -> torch.Tensor:
        """A tensor of this form, without memory."""
        return torch.empty(self.shape, dtype=self.dtype, device="meta", requires_grad=self.gradient)


def forms_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The forms of tensors; other values as they are, of collections only their kind."""

    def form(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return Form(tuple(value.shape), value.dtype, value.requires_grad)
        return type(value)() if isinstance(value, tuple | list | dict) else value

    return {name: form(value) for name, value in values.items()}


@dataclass(frozen=True)
class Stage:
    """The graph of a stage. `inputs` and `outputs` are the names of the values that cross its cuts; `tensors` those of the
    parameters and buffers that it uses."""

    graph: fx.Graph
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: frozenset[str]


def make_stages(
    module: nn.Module, layers: Layers, begins: Sequence[int], forms: Mapping[str, Any], *, random: bool = False
) -> list[Stage]:
    """One stage for each run of layers that begins at 0 or one of `begins`.

    `forms` are those of a forward pass; what crosses a cut and is no tensor (a size) is taken from there. Where `random`,
    each layer is preceded by `reseed`.
    """
    if random:
        layers = _reseeding(layers)
    bounds = [0, *begins, len(layers.nodes)]
    groups = [[node for layer in layers.nodes[begin:end] for node in layer] for begin, end in pairwise(bounds)]
    placeholder = next(node for node in layers.graph.nodes if node.op == "placeholder")
    output = next(node for node in layers.graph.nodes if node.op == "output")
    home = {node: place for place, group in enumerate(groups) for node in group} | {placeholder: -1}
    last_use = {node: max((home.get(user, len(groups)) for user in node.users), default=-1) for node in home}
    stages = []
    crossing = [placeholder]
    for place, group in enumerate(groups):
        final = place == len(groups) - 1
        leaving = [node for node in [*crossing, *group] if last_use[node] > place and _is_tensor(forms, node)]
        stages.append(_stage(module, group, crossing, output.args[0] if final else leaving, forms, final))
        crossing = leaving
    _refuse_shared(stages, module)
    return stages


def _reseeding(layers: Layers) -> Layers:
    nodes = []
    for number, layer in enumerate(layers.nodes):
        with layers.graph.inserting_before(layer[0]):
            nodes.append((layers.graph.call_function(reseed, (number,)), *layer))
    return replace(layers, nodes=tuple(nodes))


def _is_tensor(forms: Mapping[str, Any], node: fx.Node) -> bool:
    value = forms[node.name]
    if isinstance(value, tuple | list | dict):
        raise UnsupportedError(
            f"The value {node.name!r} of the forward pass would cross the end of a stage, and it is a {type(value).__name__}; "
            "only tensors and numbers can. Cut elsewhere: split=[names of layers]."
        )
    return isinstance(value, Form)


def _stage(
    module: nn.Module,
    group: list[fx.Node],
    crossing: list[fx.Node],
    leaving: Any,
    forms: Mapping[str, Any],
    final: bool,
) -> Stage:
    graph = fx.Graph()
    copies: dict[fx.Node, Any] = {node: graph.placeholder(node.name) for node in crossing}

    def copied(node: fx.Node) -> Any:
        if node not in copies:
            # a parameter that is used by itself, or a number from an earlier stage
            copies[node] = graph.node_copy(node) if node.op == "get_attr" else forms[node.name]
        return copies[node]

    for node in group:
        arguments = fx.map_arg((node.args, node.kwargs), copied)
        made = graph.create_node(node.op, node.target, *arguments, name=node.name)
        copies[node] = made
    if final:
        graph.output(fx.map_arg(leaving, copied))
    else:
        graph.output(tuple(copied(node) for node in leaving))
    outputs = () if final else tuple(node.name for node in leaving)
    return Stage(graph, tuple(node.name for node in crossing), outputs, frozenset(_tensors(module, graph)))


def _tensors(module: nn.Module, graph: fx.Graph) -> Iterator[str]:
    for node in graph.nodes:
        if node.op == "get_attr":
            yield str(node.target)
        elif node.op == "call_module":
            for name in module.get_submodule(str(node.target)).state_dict(keep_vars=True):
                yield f"{node.target}.{name}"


def _refuse_shared(stages: Sequence[Stage], module: nn.Module) -> None:
    owners: dict[int, tuple[int, str]] = {}
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for place, stage in enumerate(stages):
        for name in stage.tensors & set(parameters):
            first = owners.setdefault(id(parameters[name]), (place, name))
            if first[0] != place:
                raise UnsupportedError(
                    f"The parameter {name!r} is used in stage {place} and, as {first[1]!r}, in stage {first[0]}. A pipeline "
                    "cannot part what shares weights: cut elsewhere (split=[names of layers]) or use another strategy."
                )


def named_begins(layers: Layers, names: Sequence[str], stages: int) -> list[int]:
    """The layers with which stages after the first begin, by name."""
    known = ", ".join(layers.names)
    if len(names) != stages - 1:
        raise OptionError("split", list(names), f"the {stages - 1} layers with which stages 2 to {stages} begin")
    for name in names:
        if name not in layers.names:
            raise OptionError("split", name, f"a layer with parameters: {known}")
    begins = [layers.names.index(name) for name in names]
    if begins != sorted(set(begins)) or 0 in begins:
        raise OptionError("split", list(names), f"in the order of the layers, without the first: {known}")
    return begins
