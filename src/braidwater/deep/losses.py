"""Losses by name: what they learn, and how a module's output becomes a prediction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn import functional

from braidwater.errors import OptionError

Target = Literal["class", "number"]
LossFunction = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Loss:
    """A loss that gives one number a row, and the kind of label that it is for.

    For classes the module's output is ``(rows, classes)``, the logarithms of the odds; for a number ``(rows, 1)`` or
    ``(rows,)``.
    """

    function: LossFunction
    target: Target


@dataclass(frozen=True)
class RowLoss:
    """A loss of `torch.nn.functional`: one number a row, or their mean by a kernel of its own."""

    function: Callable[..., Any]

    def __call__(self, output: Any, target: Any) -> Any:
        return self.function(output, target, reduction="none")

    def mean_of_rows(self, output: Any, target: Any) -> Any:
        return self.function(output, target)


LOSSES: dict[str, Loss] = {
    "cross_entropy": Loss(RowLoss(functional.cross_entropy), "class"),
    "mse": Loss(RowLoss(functional.mse_loss), "number"),
    "l1": Loss(RowLoss(functional.l1_loss), "number"),
    "huber": Loss(RowLoss(functional.huber_loss), "number"),
}

_CLASS_LOSSES = (torch.nn.CrossEntropyLoss, torch.nn.NLLLoss, torch.nn.MultiMarginLoss)


def find_loss(loss: str | LossFunction, label_kind: Target | None, number_label: bool) -> Loss:
    """The loss that was asked for. ``"auto"``: squared error for a label of floats, cross entropy for any other.

    A callable gets ``(output, target)`` and gives a number a row, or their mean; `label_kind` says what its targets are.

    >>> find_loss("auto", None, number_label=True).target
    'number'
    """
    if loss == "auto":
        loss = "mse" if number_label and label_kind != "class" else "cross_entropy"
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise OptionError("loss", loss, f"one of auto, {', '.join(LOSSES)}, or a function of (output, target)")
        found = LOSSES[loss]
        if label_kind is not None and label_kind != found.target:
            raise OptionError("label_kind", label_kind, f"{found.target!r} for loss={loss!r}")
        return found
    return Loss(loss, label_kind or ("class" if isinstance(loss, _CLASS_LOSSES) else "number"))
