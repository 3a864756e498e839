"""How a length is cut into parts of nearly equal size, one for each worker."""

from __future__ import annotations


def cut(length: int, part: int, parts: int) -> tuple[int, int]:
    """Where part number `part` of `parts` begins and ends.

    >>> [cut(7, part, 3) for part in range(3)]
    [(0, 2), (2, 4), (4, 7)]
    """
    return length * part // parts, length * (part + 1) // parts
