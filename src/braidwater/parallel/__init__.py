"""Strategies: how one training is spread over workers.

Names are looked up on first use, so that naming a strategy needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from braidwater.parallel.base import Data, Strategy, Trained, Training

if TYPE_CHECKING:
    from braidwater.parallel.all_reduce import AllReduce
    from braidwater.parallel.averaging import Averaging
    from braidwater.parallel.single import Single

# the name of each strategy, and where it lies; a new strategy is a new file and a line here
STRATEGIES = {
    "single": ("braidwater.parallel.single", "Single"),
    "all_reduce": ("braidwater.parallel.all_reduce", "AllReduce"),
    "averaging": ("braidwater.parallel.averaging", "Averaging"),
}
_PLACES = {class_name: module for module, class_name in STRATEGIES.values()}

__all__ = [
    "STRATEGIES",
    "AllReduce",
    "Averaging",
    "Data",
    "Single",
    "Strategy",
    "Trained",
    "Training",
    "strategy_class",
]


def strategy_class(name: str) -> type[Strategy]:
    """The class of a strategy by its name.

    >>> strategy_class("single").exact
    True
    """
    from braidwater.errors import OptionError

    if name not in STRATEGIES:
        raise OptionError("strategy", name, f"one of auto, {', '.join(STRATEGIES)}")
    module, class_name = STRATEGIES[name]
    found: type[Strategy] = getattr(import_module(module), class_name)
    return found


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
