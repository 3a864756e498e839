"""The hash of a cell that Java's hashCode gives, by which SystemDS counts tokens and hashes columns."""

from __future__ import annotations

import struct


def hash_code(cell: str | float) -> int:
    """A signed number of 32 bits: of a text its units of UTF-16 in powers of 31, of a number its 64 bits folded in two.

    >>> hash_code("town"), hash_code("this is a text"), hash_code(2.5), hash_code(7), hash_code(True)
    (3566226, -1879005632, 1074003968, 7, 1231)
    """
    if isinstance(cell, str):
        return _signed(_of_text(cell))
    if isinstance(cell, bool):
        return 1231 if cell else 1237
    bits = int.from_bytes(struct.pack(">d", cell) if isinstance(cell, float) else struct.pack(">q", cell))
    return _signed((bits ^ bits >> 32) & 0xFFFFFFFF)


def _of_text(text: str) -> int:
    found = 0
    for (unit,) in struct.iter_unpack("<H", text.encode("utf-16-le")):
        found = (31 * found + unit) & 0xFFFFFFFF
    return found


def _signed(bits: int) -> int:
    return bits - (1 << 32) if bits >= 1 << 31 else bits
