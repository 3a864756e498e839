"""Memory that a thread uses again for every tile."""

from __future__ import annotations

import threading
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

_threads = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """An array of this thread's own, with whatever was left in it.

    A fresh megabyte costs 250 page faults, as much as the work on a tile. Two arrays that are alive at the same time in
    one thread need different names. The memory stays with the thread, one piece a name, as large as the largest asked.
    """
    pieces: dict[str, NDArray[Any]] = _threads.__dict__.setdefault("pieces", {})
    size = prod(shape) * np.dtype(dtype).itemsize
    piece = pieces.get(name)
    if piece is None or piece.nbytes < size:
        piece = pieces[name] = np.empty(size, np.uint8)
    part: NDArray[Any] = piece[:size].view(dtype).reshape(shape)
    return part
