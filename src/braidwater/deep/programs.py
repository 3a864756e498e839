"""Modules as data: the graph of a torch.export program as JSON, and its weights in safetensors. Nothing in either is code.

The archives that torch.export writes are not taken: loading one unpickles (`torch/export/pt2_archive/_package.py`, with
``weights_only=False``) and evaluates the texts of symbolic sizes (``sympy.sympify``), so that whoever wrote it runs code.
Here an operation is looked up in a list of plain functions of tensors, and everything else is refused.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from braidwater.errors import CorruptModelError, OptionError, UnsupportedError

_FORMAT = 1
_NAMES = """
    _softmax _log_softmax abs adaptive_avg_pool1d adaptive_avg_pool2d add add_ addmm amax amin avg_pool1d avg_pool2d batch_norm
    bmm cat celu chunk clamp clamp_min clone contiguous conv1d conv2d cos div dropout elu embedding exp expand feature_dropout
    flatten gelu glu group_norm hardsigmoid hardswish hardswish_ hardtanh hardtanh_ layer_norm leaky_relu leaky_relu_ linear log
    log_softmax logsumexp matmul max_pool1d max_pool2d maximum mean minimum mish mm mul neg permute pow prelu relu relu_ relu6
    reshape rms_norm rsqrt rsub scaled_dot_product_attention select selu sigmoid silu silu_ sin slice softmax softplus split
    split_with_sizes sqrt squeeze stack std sub sum sym_size t tanh tile transpose unbind unflatten unsqueeze var view
"""
ALLOWED = frozenset(_NAMES.split())  # functions of tensors, which read and write nothing else
_PLAIN: dict[str, Callable[..., Any]] = {
    f"operator.{one}": getattr(operator, one) for one in ("add", "sub", "mul", "floordiv", "getitem", "neg")
}
_CHECKS = ("_assert_scalar", "_assert_tensor_metadata", "sym_constrain_range_for_size", "_assert_async")
# of these the argument at a place is another one where the module is not in training
_EVALUATING: dict[str, tuple[int, str, Any]] = {
    "dropout": (2, "train", False), "feature_dropout": (2, "train", False), "batch_norm": (5, "training", False),
    "scaled_dot_product_attention": (4, "dropout_p", 0.0),
}  # fmt: skip


class Program(torch.nn.Module):
    """A module that computes what a document of `export_program` says, with its own copies of the weights.

    >>> text, weights = export_program(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)), (3,))
    >>> Program(text, weights)(torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(self, text: str, weights: bytes) -> None:
        super().__init__()
        document = _document(text)
        self._nodes = [(str(one["name"]), str(one["op"]), one["args"], one["kwargs"]) for one in document["nodes"]]
        for _, op, *_ in self._nodes:
            _operation(op)
        self._input, self._output = str(document["input"]), document["output"]
        self._held = {str(name): str(place) for name, place in document["held"].items()}
        self._changed = {str(name): str(place) for name, place in document["changed"].items()}
        try:
            tensors = load(weights)
        except SafetensorError as error:
            raise CorruptModelError(f"The weights of a program cannot be read: {error}.") from error
        for place in dict.fromkeys(self._held.values()):
            if place not in tensors:
                raise CorruptModelError(f"The weights of a program lack {place!r}.")
            self._hold(place, tensors[place], trained=place in document["parameters"])

    def _hold(self, name: str, tensor: torch.Tensor, *, trained: bool) -> None:
        if hasattr(self, name):
            raise CorruptModelError(f"A program calls a tensor {name!r}, which a module has already.")
        if trained:
            self.register_parameter(name, torch.nn.Parameter(tensor))
        else:
            self.register_buffer(name, tensor)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        values: dict[str, Any] = {name: getattr(self, place) for name, place in self._held.items()}
        values[self._input] = rows
        for name, op, given, named in self._nodes:
            if not self.training and _counts(op, given, self._held):
                continue
            arguments = [_value(one, values) for one in given]
            by_name = {key: _value(one, values) for key, one in named.items()}
            if not self.training and _bare(op) in _EVALUATING:
                number, key, instead = _EVALUATING[_bare(op)]
                if number < len(arguments):
                    arguments[number] = instead
                elif key in by_name:
                    by_name[key] = instead
            values[name] = _operation(op)(*arguments, **by_name)
        if self.training:
            for name, place in self._changed.items():
                getattr(self, place).copy_(values[name])
        output: torch.Tensor = _value(self._output, values)
        return output


@dataclass(frozen=True)
class ProgramFactory:
    """Makes the module of a program, for a table of the inputs and outputs that it was exported for."""

    text: str
    weights: bytes

    def __call__(self, inputs: Any, outputs: int, **arguments: Any) -> Program:
        if arguments:
            raise OptionError("module_arguments", sorted(arguments), "left out: a program has its sizes in it")
        wanted = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        shape = _document(self.text)["shape"]
        if shape != wanted:
            raise OptionError("program", shape, f"one for rows of shape {wanted}, as these columns make them")
        return Program(self.text, self.weights)


def export_program(module: torch.nn.Module, shape: tuple[int, ...]) -> tuple[str, bytes]:
    """The graph of a module of rows of this shape as JSON, and its weights, for `load_torch_program`.

    Traced by `torch.export` with any number of rows, in training: dropout and batch normalisation know later which of both
    it is. `UnsupportedError` names an operation that is not on the list (`ALLOWED`).
    """
    module.train()
    example = torch.zeros(4, *shape)
    traced = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("rows", min=2)},))
    signature = traced.graph_signature
    held = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    tensors = {**traced.state_dict, **traced.constants}
    nodes, inputs = [], []
    outputs: Sequence[Any] = ()
    for node in traced.graph.nodes:
        if node.op == "placeholder" and node.name not in held:
            inputs.append(node.name)
        elif node.op == "output":
            outputs = node.args[0]
        elif node.op == "call_function" and _bare(_op(node.target)) not in _CHECKS:
            op = _op(node.target)
            _operation(op)
            nodes.append({"name": node.name, "op": op, "args": _plain(node.args), "kwargs": _plain(dict(node.kwargs))})
    results = [one.name for one in outputs if one is not None and one.name not in signature.buffers_to_mutate]
    if len(inputs) != 1 or len(results) != 1:
        raise UnsupportedError(f"A program has one input and one output; this has {len(inputs)} and {len(results)}.")
    parameters = sorted({_flat(place) for place in signature.inputs_to_parameters.values()})
    document = {
        "format": _FORMAT, "shape": list(shape), "input": inputs[0], "output": {"node": results[0]}, "nodes": nodes,
        "held": {name: _flat(place) for name, place in held.items()}, "parameters": parameters,
        "changed": {name: _flat(place) for name, place in signature.buffers_to_mutate.items()},
    }  # fmt: skip
    kept = {_flat(place): tensors[place].detach().clone().contiguous() for place in held.values()}
    return json.dumps(document), bytes(save(kept))


def _document(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
        if found["format"] != _FORMAT or not isinstance(found["nodes"], list):
            raise CorruptModelError(
                f"A program of format {found['format']} is not known; this version reads {_FORMAT}."
            )
        for name in ("shape", "input", "output", "held", "changed", "parameters"):
            found[name]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptModelError(f"This is no program of export_program: {error!r}.") from error
    return dict(found)


@lru_cache(maxsize=1024)
def _operation(name: str) -> Callable[..., Any]:
    """The function that an operation's name stands for, if it is one of those on the list."""
    if name in _PLAIN:
        return _PLAIN[name]
    parts = name.split(".")
    if len(parts) != 3 or parts[0] != "aten" or parts[1] not in ALLOWED:
        raise UnsupportedError(
            f"A program with the operation {name!r} is not taken; known are {', '.join(sorted(ALLOWED))}."
        )
    packet = getattr(torch.ops.aten, parts[1])
    if parts[2] not in packet.overloads():
        raise UnsupportedError(f"There is no operation {name!r} in this torch.")
    found: Callable[..., Any] = getattr(packet, parts[2])
    return found


def _op(target: Any) -> str:
    return (
        str(target) if isinstance(target, torch._ops.OpOverload) else f"operator.{getattr(target, '__name__', target)}"
    )


def _bare(op: str) -> str:
    return op.split(".")[1] if op.count(".") == 2 else op


def _plain(value: Any) -> Any:
    """Arguments of a node as JSON has them."""
    if isinstance(value, torch.fx.Node):
        return {"node": value.name}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise UnsupportedError(f"A program cannot hold the argument {value!r}, a {type(value).__name__}.")


def _value(plain: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(plain, list):
        return [_value(one, values) for one in plain]
    if not isinstance(plain, dict):
        return plain
    ((kind, content),) = plain.items()
    if kind == "node":
        return values[content]
    if kind == "float":
        return float(content)
    if kind == "dtype" and isinstance(getattr(torch, str(content), None), torch.dtype):
        return getattr(torch, content)
    raise CorruptModelError(f"A program holds {plain!r}, which nothing is known of.")


def _counts(op: str, given: list[Any], held: Mapping[str, str]) -> bool:
    """Whether an operation changes a buffer, as batch normalisation counts its batches."""
    first = given[0] if given else None
    return _bare(op).endswith("_") and isinstance(first, dict) and first.get("node") in held


def _flat(place: str) -> str:
    """The name of a tensor that a module can have as an attribute of its own."""
    return place.replace(".", "__")
