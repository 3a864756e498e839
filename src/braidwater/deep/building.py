"""From what a trainer was given to what a strategy trains: the module, built and checked, and the figures for the planner."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from math import prod
from typing import Any

import torch

from braidwater.deep.inputs import InputForm
from braidwater.deep.layers import Layers, find_layers
from braidwater.deep.losses import Target
from braidwater.errors import LabelError, ModelSchemaError, OptionError, UnsafeModelError
from braidwater.parallel.mixed_precision import weights_dtype

ModuleSpec = torch.nn.Module | str | Callable[..., torch.nn.Module]

OWN = "braidwater."


def build_module(
    spec: ModuleSpec, arguments: Mapping[str, Any], form: InputForm, outputs: int, seed: int
) -> torch.nn.Module:
    """The module to train: a copy of one that was given, or what a factory makes, its weights drawn from `seed`.

    A factory (a class, a function, or the import path ``"package.module:name"`` of one) is called with the inputs (the
    width of the design, or the shape of an image), the number of outputs, and `arguments`.
    """
    if isinstance(spec, torch.nn.Module):
        return copy.deepcopy(spec)
    factory = import_factory(spec) if isinstance(spec, str) else spec
    inputs = form.shape[0] if form.whole is None else form.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = factory(inputs, outputs, **arguments)
    if not isinstance(module, torch.nn.Module):
        raise OptionError("module", type(module).__name__, "a torch.nn.Module, or a factory that returns one")
    return module


def import_factory(path: str, trusted: Sequence[str] | None = None) -> Callable[..., torch.nn.Module]:
    """What lies at ``"package.module:name"``. Where `trusted` is given, only in those packages and in braidwater itself.

    The path in a saved model is somebody else's text: importing and calling whatever it names could run any code.
    """
    place, _, name = path.partition(":")
    if trusted is not None and not any(
        f"{place}.".startswith(f"{package.rstrip('.')}.") for package in (OWN, *trusted)
    ):
        raise UnsafeModelError(
            f"The model's module comes from {path!r}, which is not imported on its word. If you trust it, load it with "
            f"trust=[{place.partition('.')[0]!r}], or give the module: load(path, module=...)."
        )
    try:
        found: Any = import_module(place)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise OptionError(
            "module", path, "the import path of a module's class, such as 'package.module:Class'"
        ) from error
    if not callable(found):
        raise OptionError("module", path, "the import path of a class or function")
    factory: Callable[..., torch.nn.Module] = found
    return factory


def factory_path(spec: ModuleSpec) -> str | None:
    """The import path of a factory; None for a module that was given, and for functions that cannot be imported."""
    if isinstance(spec, str):
        return spec
    if isinstance(spec, torch.nn.Module):
        return None
    name = getattr(spec, "__qualname__", "<")
    return None if "<" in name or spec.__module__ == "__main__" else f"{spec.__module__}:{name}"


def check_outputs(module: torch.nn.Module, form: InputForm, target: Target, outputs: int) -> None:
    """Send two rows of zeros through the module and compare what comes out with what the label needs."""
    output = _forward(module, form, 2)
    if target == "class":
        if output.ndim != 2 or output.shape[1] != outputs:
            found = output.shape[1] if output.ndim == 2 else tuple(output.shape)
            raise LabelError(
                f"The label has {outputs} classes, but the module gives {found} outputs a row. Give it one for each class."
            )
    elif output.shape not in ((2,), (2, 1)):
        raise LabelError(
            f"The label is a number, but the module gives an output of shape {tuple(output.shape)} for two rows."
        )


def count_layers(module: torch.nn.Module, form: InputForm) -> Layers:
    """The layers of a module, with operations and bytes of one row."""
    _forward(module, form, 1)  # refuses what cannot take these rows
    before = module.training
    module.eval()
    try:
        return find_layers(module, _rows(module, form, 1))
    finally:
        module.train(before)


def parameter_bytes(module: torch.nn.Module) -> int:
    """Bytes of the weights."""
    return sum(p.numel() * p.element_size() for p in module.parameters())


def load_weights(module: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Put saved weights into a module that was made anew."""
    try:
        module.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise ModelSchemaError(f"The saved weights do not fit the module {type(module).__name__}: {error}") from error


def _forward(module: torch.nn.Module, form: InputForm, rows: int) -> torch.Tensor:
    before = module.training
    module.eval()
    try:
        with torch.no_grad():
            output: torch.Tensor = module(_rows(module, form, rows))
    except (RuntimeError, ValueError, IndexError) as error:
        raise OptionError(
            "module",
            type(module).__name__,
            f"one that takes rows of shape {form.shape} ({prod(form.shape)} numbers): {error}",
        ) from error
    finally:
        module.train(before)
    if not isinstance(output, torch.Tensor):
        raise OptionError(
            "module",
            type(module).__name__,
            f"one whose output is a tensor, one row for each row of the input; this one gives a {type(output).__name__}. "
            "Wrap it in a module whose forward picks the tensor that the loss is to see",
        )
    return output


def _rows(module: torch.nn.Module, form: InputForm, rows: int) -> torch.Tensor:
    """Zeros as the module gets them."""
    first = next(module.parameters(), None)
    dtype = weights_dtype(form.precision) if first is None else first.dtype
    return torch.zeros(rows, *form.shape, dtype=torch.int64 if form.tokens else dtype)
