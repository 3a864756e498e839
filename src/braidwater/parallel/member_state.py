"""What a worker has to remember, as plain values and tensors: what JSON and safetensors can hold."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from braidwater.errors import UnsupportedError
from braidwater.parallel.shards import Part, is_shared, part_of


@dataclass(frozen=True)
class MemberState:
    """What a worker writes down: tensors by name, and plain values. `parts` are the names of tensors held together."""

    tensors: dict[str, torch.Tensor]
    values: dict[str, Any]
    parts: dict[str, Part] = field(default_factory=dict)

    def copied(self) -> MemberState:
        """A copy that training does not change: of tensors held together, this worker's part."""
        tensors, parts = {}, dict(self.parts)
        for name, tensor in self.tensors.items():
            own: Any = tensor.detach()
            if is_shared(own):
                parts[name] = part_of(own)
                own = own.to_local()
            tensors[name] = own.to("cpu", copy=True).contiguous()
        return MemberState(tensors, self.values, parts)


def split_tensors(tree: Any, name: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """A tree of plain values in which names stand for the tensors, and the tensors by name.

    >>> split_tensors({0: {"step": torch.tensor(3.0), "betas": (0.9, 0.999)}}, "optimizer")
    ({'pairs': [[0, {'step': {'tensor': 'optimizer/0/step'}, 'betas': [0.9, 0.999]}]]},
     {'optimizer/0/step': tensor(3.)})
    """
    if isinstance(tree, torch.Tensor):
        return {"tensor": name}, {name: tree}
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree, {}
    tensors: dict[str, torch.Tensor] = {}

    def visit(key: Any, value: Any) -> Any:
        plain, found = split_tensors(value, f"{name}/{key}")
        tensors.update(found)
        return plain

    if isinstance(tree, Mapping):
        if all(isinstance(key, str) for key in tree):
            return {key: visit(key, value) for key, value in tree.items()}, tensors
        return {"pairs": [[key, visit(key, value)] for key, value in tree.items()]}, tensors
    if isinstance(tree, list | tuple):
        return [visit(place, value) for place, value in enumerate(tree)], tensors
    raise UnsupportedError(
        f"A checkpoint cannot hold {name}, a {type(tree).__name__}: only tensors, numbers, texts, lists and dictionaries."
    )


def join_tensors(tree: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The tree that `split_tensors` took apart (tuples have become lists)."""
    if isinstance(tree, list):
        return [join_tensors(value, tensors) for value in tree]
    if isinstance(tree, dict):
        if set(tree) == {"tensor"}:
            return tensors[tree["tensor"]]
        if set(tree) == {"pairs"}:
            return {key: join_tensors(value, tensors) for key, value in tree["pairs"]}
        return {key: join_tensors(value, tensors) for key, value in tree.items()}
    return tree


def random_state() -> MemberState:
    """The states of the generators that a module may draw from: torch's, Python's and numpy's."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    values = {
        "python": [version, list(numbers), gauss],
        "numpy": [str(kind), [int(k) for k in keys], position, has_gauss, cached],
    }
    return MemberState({"random/torch": torch.get_rng_state()}, values)


def restore_random_state(state: MemberState) -> None:
    """Go on where the generators stood."""
    torch.set_rng_state(state.tensors["random/torch"])
    version, numbers, gauss = state.values["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, position, has_gauss, cached = state.values["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), position, has_gauss, cached))
