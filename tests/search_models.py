"""Models for tests of searches. They are imported by the worker processes, so they lie in a file of their own."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator

from braidwater.events import Metric, emit


class Parabola(BaseEstimator):
    """Trains nothing. Its loss is ``(x - 0.3)^2 + (log10(rate) + 2)^2``, told in ten steps from above."""

    def __init__(self, x: float = 0.0, rate: float = 1.0, layers: Any = None, seconds: float = 0.0) -> None:
        self.x = x
        self.rate = rate
        self.layers = layers
        self.seconds = seconds

    @property
    def loss(self) -> float:
        from math import log10

        return (self.x - 0.3) ** 2 + (log10(self.rate) + 2) ** 2

    def fit(self, rows: Any, label: str | None = None) -> Parabola:
        for step in range(1, 11):
            time.sleep(self.seconds / 10)
            emit(Metric(name="loss", value=self.loss + 1 / step, step=step))
        return self

    def evaluate(self, rows: Any) -> dict[str, float]:
        return {"loss": self.loss, "gain": -self.loss, "size": abs(self.x)}


class Trouble(BaseEstimator):
    """Does what `how` says in the middle of a trial."""

    def __init__(self, how: str = "fine", folder: str = "") -> None:
        self.how = how
        self.folder = folder

    def fit(self, rows: Any, label: str | None = None) -> Trouble:
        if self.how == "raises":
            raise ZeroDivisionError("in the objective")
        if self.how == "hangs":
            time.sleep(600)
        if self.how == "killed once" and not (Path(self.folder) / "once").exists():
            (Path(self.folder) / "once").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        return self

    def evaluate(self, rows: Any) -> dict[str, float]:
        if self.how == "no metric":
            return {"other": 1.0}
        return {"loss": float("nan") if self.how == "no number" else 1.0}


def on_a_small_disk(parameters: dict[str, Any]) -> Any:
    """A trainer in a process that cannot write files larger than 400 KB, as on a disk that is full."""
    from braidwater.deep import Trainer  # not above: importing torch takes longer than some trials may

    if os.environ["STARTER"] != str(os.getpid()):  # not where the search is started
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    return Trainer("braidwater.deep.modules:MLP", module_arguments={"hidden": parameters["hidden"]}, epochs=3)
