"""Which layer of a module is parted in which way."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import fx, nn
from torch.nn import functional

from braidwater.errors import OptionError, UnsupportedError

Style = Literal["column", "row", "single", "embedding", "heads"]

KINDS: dict[str, type[nn.Module]] = {
    "column": nn.Linear,
    "row": nn.Linear,
    "single": nn.Linear,
    "embedding": nn.Embedding,
    "heads": nn.MultiheadAttention,
}
_ELEMENT_WISE_LAYERS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Tanh,
    nn.Sigmoid,
    nn.Softplus,
    nn.Hardswish,
    nn.Identity,
    nn.Dropout,
)
_ELEMENT_WISE: tuple[object, ...] = (
    functional.relu,
    functional.gelu,
    functional.silu,
    functional.leaky_relu,
    functional.elu,
    functional.softplus,
    torch.relu,
    torch.tanh,
    torch.sigmoid,
    operator.neg,
    "relu",
    "tanh",
    "sigmoid",
)
_TRANSFORMER_LAYERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


@dataclass(frozen=True)
class Plan:
    """The style of each parted layer, and the width of the parted activations that a dropout works on, by layers' names."""

    styles: dict[str, Style]
    dropouts: dict[str, int]


def make_plan(module: nn.Module, wanted: str | Mapping[str, str], workers: int) -> Plan:
    """The plan for a module: from patterns of names, or found out where `wanted` is "auto".

    "auto" parts transformer layers of torch, embeddings, linear layers with only element-wise layers between them (by
    columns, then by rows), and every other linear layer on its own. Layers with fewer entries than workers stay whole.
    """
    chains = list(_chains(module))
    styles = _automatic(module, chains, workers) if wanted == "auto" else _by_hand(module, wanted, workers)
    dropouts = {
        name: width
        for first, between, last, width in chains
        if styles.get(first) == "column" and styles.get(last) == "row"
        for name in between
    }
    return Plan(styles, dropouts)


def _by_hand(module: nn.Module, wanted: str | Mapping[str, str], workers: int) -> dict[str, Style]:
    if isinstance(wanted, str) or not wanted:
        raise OptionError("plan", wanted, "'auto', or styles for patterns of layers' names such as {'head': 'column'}")
    kinds = tuple(KINDS.values())
    layers: dict[str, nn.Module] = {name: layer for name, layer in module.named_modules() if isinstance(layer, kinds)}
    styles: dict[str, Style] = {}
    for pattern, style in wanted.items():
        if style not in KINDS:
            raise OptionError("plan", style, f"for each pattern one of {', '.join(KINDS)}")
        found = [name for name in layers if fnmatchcase(name, pattern)]
        if not found:
            raise OptionError(
                "plan",
                pattern,
                f"a pattern of names of layers that can be parted: {', '.join(layers) or 'there are none'}",
            )
        for name in found:
            if not isinstance(layers[name], KINDS[style]):
                kind = type(layers[name]).__name__
                raise OptionError(
                    "plan", {pattern: style}, f"a style for {kind}; {style!r} is for {KINDS[style].__name__}"
                )
            _check_size(name, layers[name], style, workers)
            styles[name] = style  # type: ignore[assignment]
    _check_shared(module, styles)
    return styles


def _automatic(module: nn.Module, chains: list[tuple[str, list[str], str, int]], workers: int) -> dict[str, Style]:
    styles: dict[str, Style] = {}
    for first, _, last, width in chains:
        if first not in styles and last not in styles and width >= workers:
            styles |= {first: "column", last: "row"}
    shared = _shared(module)
    for name, layer in module.named_modules():
        if name in styles or name in shared:
            continue
        if isinstance(layer, nn.MultiheadAttention) and layer.num_heads >= workers:
            styles[name] = "heads"
        elif isinstance(layer, nn.Embedding) and layer.num_embeddings >= workers and not layer.sparse:
            styles[name] = "embedding"
        elif type(layer) is nn.Linear and max(layer.in_features, layer.out_features) >= workers:
            styles[name] = "single"
    if not styles:
        raise OptionError(
            "plan", "auto", "for modules with linear layers, embeddings or attention; this one has none to part"
        )
    return {name: style for name, style in styles.items() if not name.endswith(".out_proj") or style != "single"}


def _chains(module: nn.Module) -> Iterator[tuple[str, list[str], str, int]]:
    """Pairs of linear layers with only element-wise layers between them: first, the dropouts between, last, width."""
    for name, layer in module.named_modules():
        if isinstance(layer, _TRANSFORMER_LAYERS):
            at = f"{name}." if name else ""
            yield f"{at}linear1", [f"{at}dropout"], f"{at}linear2", layer.linear1.out_features
    try:
        graph = fx.Tracer().trace(module)
    except Exception:  # whatever a forward pass in plain Python raises at values that are not there yet
        return
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    shared = _shared(module)
    for node in graph.nodes:
        if _is_linear(module, node) and calls[node.target] == 1 and node.target not in shared:
            between, last = _follow(module, node)
            if last is not None and calls[last] == 1 and last not in shared:
                yield str(node.target), between, last, module.get_submodule(str(node.target)).out_features  # type: ignore[misc]


def _follow(module: nn.Module, node: fx.Node) -> tuple[list[str], str | None]:
    """From a linear layer along element-wise operations: the dropouts on the way, and the linear layer at its end."""
    dropouts: list[str] = []
    while len(node.users) == 1:
        node = next(iter(node.users))
        if _is_linear(module, node):
            return dropouts, str(node.target)
        if node.op == "call_module" and isinstance(module.get_submodule(str(node.target)), _ELEMENT_WISE_LAYERS):
            if isinstance(module.get_submodule(str(node.target)), nn.Dropout):
                dropouts.append(str(node.target))
        elif node.op not in ("call_function", "call_method") or node.target not in _ELEMENT_WISE:
            break
    return dropouts, None


def _is_linear(module: nn.Module, node: fx.Node) -> bool:
    return node.op == "call_module" and type(module.get_submodule(str(node.target))) is nn.Linear


def _check_size(name: str, layer: nn.Module, style: str, workers: int) -> None:
    sizes = {
        "column": ("out_features", "outputs"),
        "row": ("in_features", "inputs"),
        "embedding": ("num_embeddings", "rows"),
        "heads": ("num_heads", "heads"),
    }
    attribute, what = sizes.get(style, ("out_features", "outputs"))
    size = getattr(layer, attribute)
    if style == "single":
        size = max(size, layer.in_features)
    if size < workers:
        raise OptionError("workers", workers, f"at most {size}: layer {name!r} has no more {what} to part")


def _check_shared(module: nn.Module, styles: Mapping[str, str]) -> None:
    for name in _shared(module) & set(styles):
        raise UnsupportedError(
            f"Layer {name!r} shares its weights with another layer, so it cannot be parted. Leave it out of `plan`."
        )


def _shared(module: nn.Module) -> set[str]:
    """The layers that have a parameter in common with another one."""
    owners: dict[int, list[str]] = {}
    for name, layer in module.named_modules(remove_duplicate=False):
        for parameter in layer.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    return {name for names in owners.values() if len(names) > 1 for name in names}


def kept_together(module: nn.Module, plan: Plan) -> list[str]:
    """The layers before which activations are parted, in the order of the module: from behind a "column" to its "row"."""
    found, parted = [], False
    for name, _ in module.named_modules():
        style = plan.styles.get(name)
        if parted:
            found.append(name)
        parted = style == "column" or (parted and style != "row")
    return found
