"""Ensembles of braidwater's own modules, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from braidwater.deep.modules import CNN, MLP, Inputs
from braidwater.errors import OptionError
from braidwater.parallel.ensemble import EnsembleModule
from braidwater.parallel.ensemble.module import Combine

MODULES: dict[str, Callable[..., nn.Module]] = {"MLP": MLP, "CNN": CNN}


def ensemble(
    inputs: Inputs,
    outputs: int,
    *,
    modules: Sequence[str] = ("MLP",),
    members: int | None = None,
    arguments: Mapping[str, Mapping[str, Any]] | None = None,
    combine: Combine = "mean",
) -> EnsembleModule:
    """The factory of an ensemble for a trainer: `members` modules, taken in turn from `modules`.

    `modules` are ``"MLP"`` and ``"CNN"`` (of `braidwater.deep.modules`); `arguments` are those of each name. For
    modules of your own write a factory that returns an `EnsembleModule` of them. Trained with the strategy `Ensemble`::

        Trainer("braidwater.deep.ensembles:ensemble", module_arguments={"members": 4}, strategy=Ensemble(workers=2))

    >>> len(ensemble(4, 3, members=5).members)
    5
    """
    count = len(modules) if members is None else members
    if not modules or count < 1:
        raise OptionError("members", members, "at least 1, of at least one module")
    for name in modules:
        if name not in MODULES:
            raise OptionError("modules", name, f"one of {', '.join(MODULES)}; for others write a factory")
    chosen = [modules[number % len(modules)] for number in range(count)]
    made = [MODULES[name](inputs, outputs, **(arguments or {}).get(name, {})) for name in chosen]
    return EnsembleModule(made, combine, outputs=outputs)
