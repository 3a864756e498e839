"""Modules for tests of the hopper. Worker processes import them, so they lie in a file of their own."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path
from typing import Any

from torch import Tensor

from braidwater.deep.modules import MLP


class Troubled(MLP):
    """A net that does what `how` says at the `at`-th forward pass in training of its process."""

    calls = 0

    def __init__(self, inputs: Any, outputs: int, how: str = "", folder: str = "", at: int = 20) -> None:
        super().__init__(inputs, outputs, hidden=(8,), dropout=0.2)
        self.how = how
        self.flag = Path(folder) / "once"
        self.at = at

    def forward(self, features: Tensor) -> Tensor:
        if self.training and self.how:
            Troubled.calls += 1
            if Troubled.calls == self.at:
                self._trouble()
        return super().forward(features)

    def _trouble(self) -> None:
        if self.how == "raises":
            raise ZeroDivisionError("in the middle")
        if self.flag.exists():
            return
        self.flag.touch()
        if self.how == "killed once":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "full disk once":  # as on a disk that is full: no file may grow
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, resource.RLIM_INFINITY))
