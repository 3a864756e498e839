"""Compression of gradients on their way between workers."""

from __future__ import annotations

from braidwater.errors import OptionError
from braidwater.parallel.compression.base import Compression, Exchange
from braidwater.parallel.compression.half import Half
from braidwater.parallel.compression.power_sgd import PowerSGD
from braidwater.parallel.compression.threshold import Threshold

__all__ = ["COMPRESSIONS", "Compression", "Exchange", "Half", "PowerSGD", "Threshold", "compression_of"]

COMPRESSIONS: dict[str, Compression] = {
    "fp16": Half("fp16"),
    "bf16": Half("bf16"),
    "power_sgd": PowerSGD(),
    "threshold": Threshold(),
}


def compression_of(choice: str | Compression | None) -> Compression | None:
    """The compression of a name, or as it is given.

    >>> compression_of("power_sgd")
    PowerSGD(rank=1, start_step=0)
    """
    if choice is None or isinstance(choice, Compression):
        return choice
    if choice not in COMPRESSIONS:
        raise OptionError("compression", choice, f"None, one of {', '.join(COMPRESSIONS)}, or a Compression")
    return COMPRESSIONS[choice]
