"""Going on with an optimizer: its state out of the checkpoints of one training, as the beginning of another."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from braidwater.deep.optimizers import optimizer_named
from braidwater.parallel.checkpoint import Checkpoints
from braidwater.parallel.local_training import mean_state
from braidwater.parallel.member_state import join_tensors, split_tensors

State = Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True)
class WarmOptimizer:
    """An optimizer by name that begins with the `state` of an earlier one of the same kind (by the number of the parameter).

    What does not fit (another optimizer, other parameters) begins afresh. Learning rates are those of now.

    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> optimizer = WarmOptimizer("sgd", {0: {"momentum_buffer": torch.ones(2)}})([{"params": [weight]}], lr=0.1, momentum=0.9)
    >>> optimizer.state[weight]["momentum_buffer"]
    tensor([1., 1.])
    """

    name: str
    state: State

    def __call__(self, parameters: Iterable[Any], lr: float, **arguments: Any) -> torch.optim.Optimizer:
        made = optimizer_named(self.name, list(parameters), lr, arguments)
        numbered = dict(enumerate(p for group in made.param_groups for p in group["params"]))
        if self.state and all(
            number in numbered and _fits(numbered[number], one) for number, one in self.state.items()
        ):
            groups = made.state_dict()["param_groups"]
            made.load_state_dict({"state": copy.deepcopy(dict(self.state)), "param_groups": groups})
        return made


def _fits(parameter: torch.Tensor, state: Mapping[str, Any]) -> bool:
    tensors = [value for value in state.values() if isinstance(value, torch.Tensor)]
    return all(tensor.ndim == 0 or tensor.shape == parameter.shape for tensor in tensors)


def state_in(checkpoint: str | Path) -> State:
    """The state of the optimizer in the newest checkpoint of a folder: the mean over workers that each have their own."""
    found = Checkpoints(checkpoint, {}).newest()
    if found is None:
        return {}
    states: list[dict[str, Any]] = []
    for rank in range(found.members):
        member = found.member(rank)
        shares = join_tensors(member.values.get("shares"), member.tensors) or {}
        states += list(shares.values()) or [join_tensors(member.values["optimizer"], member.tensors)]
    state: State = mean_state(states)["state"]
    return state


def to_bytes(name: str, state: State) -> bytes:
    """The state of the optimizer `name` as one safetensors file. What is no tensor is JSON in its header."""
    plain, tensors = split_tensors(dict(state), "state")
    return bytes(
        save({key: one.contiguous() for key, one in tensors.items()}, {"optimizer": name, "state": json.dumps(plain)})
    )


def from_file(path: str | Path) -> WarmOptimizer:
    """What `to_bytes` has written into a file."""
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return WarmOptimizer(about["optimizer"], join_tensors(json.loads(about["state"]), tensors))
