"""Parts of scipy that are imported when something of them is first used: 0.1 s, and most scripts hold dense matrices only."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

after_import: list[Callable[[], None]] = []
"""Called when a part was imported: scipy.linalg brings a BLAS with threads of its own."""

if TYPE_CHECKING:
    from scipy import io, linalg, sparse, special
else:

    class _Part:
        """A module that is imported by the first question for one of its names."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> Any:
            module = import_module(self._name)
            vars(self).update(vars(module))  # later questions do not come here
            for tell in after_import:
                tell()
            return getattr(module, name)

    io, linalg, sparse, special = (_Part(f"scipy.{name}") for name in ("io", "linalg", "sparse", "special"))


def issparse(value: object) -> bool:
    """Whether `value` is a matrix of scipy.sparse: before that is imported nothing is."""
    ask: Any = getattr(sys.modules.get("scipy.sparse"), "issparse", None)
    return ask is not None and bool(ask(value))


__all__ = ["after_import", "io", "issparse", "linalg", "sparse", "special"]
