"""How much memory this process holds."""

from __future__ import annotations

import os
import resource
import sys

from braidwater.events import MemoryUsed

_PAGE = os.sysconf("SC_PAGE_SIZE")


def memory_used() -> MemoryUsed:
    """Resident bytes now, and at the highest since the process began."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    try:
        with open("/proc/self/statm") as handle:
            resident = int(handle.read().split()[1]) * _PAGE
    except OSError:  # no such file outside Linux
        resident = peak
    return MemoryUsed(resident=resident, peak=peak)
