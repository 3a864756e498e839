"""One worker, in this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from braidwater.engines.base import Engine
from braidwater.errors import OptionError
from braidwater.parallel.base import Data, Replica, Strategy, Trained, Training


@dataclass(frozen=True)
class Single(Strategy):
    """Train in this process, with torch's own threads inside a step. What every other strategy is measured against."""

    name: ClassVar[str] = "single"
    exact: ClassVar[bool] = True
    shapes: ClassVar[tuple[str, ...]] = ()
    workers: int = 1

    def __post_init__(self) -> None:
        if self.workers != 1:
            raise OptionError("workers", self.workers, "1 for the strategy Single; AllReduce and Averaging take more")

    def train(self, training: Training, data: Data, engine: Engine) -> Trained:
        from braidwater.parallel.loop import run_epochs

        return run_epochs(training, data, Replica(), strategy=self.name)
