"""What ``braidwater doctor`` found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["good", "missing", "bad"]


@dataclass(frozen=True)
class Finding:
    """Something that was looked at. ``missing`` is optional and not there, ``bad`` must be mended."""

    name: str
    state: State
    detail: str


def tried(name: str, attempt: Callable[[], str]) -> Finding:
    """An attempt as a finding: whatever goes wrong in it is what the doctor is for."""
    try:
        return Finding(name, "good", attempt())
    except Exception as error:
        return Finding(name, "bad", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
