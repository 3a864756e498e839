"""Curves, weights, graphs and images for TensorBoard, written beside whatever else listens."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from braidwater.events import BlockDone, Event, Histogram, Metric, PassFinished, listen
from braidwater.extras import needed_for

if TYPE_CHECKING:
    from braidwater.deep import Trainer


class TensorBoard:
    """Writes event files into `folder`: scalars of all metrics, rows a second, and histograms of weights as they come.

    It needs the package tensorboard (``pip install 'braidwater[tensorboard]'``)::

        with TensorBoard("runs/first") as board:
            trainer = Trainer(CNN, histograms=True).fit(rows, label="digit")
            board.add_model(trainer, rows)

    Metrics of steps count steps, those of epochs count epochs. A scalar costs about 20 us.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        with _quiet():
            with needed_for("Writing for TensorBoard"):
                from torch.utils.tensorboard import SummaryWriter
            self._writer: Any = SummaryWriter(str(self.folder))
        self._listening = self._listen()

    def __call__(self, event: Event) -> None:
        match event:
            case Metric():
                step = event.epoch if event.epoch is not None and not event.name.startswith("step_") else event.step
                name = event.name if event.worker in (None, 0) else f"{event.name}/worker {event.worker}"
                self._writer.add_scalar(name, event.value, step, walltime=event.time)
            case PassFinished() if event.seconds > 0:
                self._writer.add_scalar(f"rows_a_second/{event.what}", event.rows / event.seconds, event.number)
            case Histogram():
                self._add_histogram(event)
            case BlockDone() if event.seconds > 0 and (event.data_seconds or event.exchange_seconds):
                at = int(event.start * 1000)  # milliseconds: these have no step of their own
                for what, seconds in (("data", event.data_seconds), ("exchange", event.exchange_seconds)):
                    name = f"share_of_time/{what}/worker {event.worker}"
                    self._writer.add_scalar(name, seconds / event.seconds, at, walltime=event.start)

    def add_model(self, trainer: Trainer, rows: Any, *, images: int = 16) -> None:
        """Add the graph of a fitted module, traced on the first row, and where it reads images the first `images` of them."""
        sample = trainer.inputs(rows, images)
        with _quiet():
            self._writer.add_graph(trainer.module_, sample[:1])
        if sample.ndim == 4 and sample.shape[1] in (1, 3):
            low, high = sample.amin(), sample.amax()
            self._writer.add_images("images", (sample - low) / (high - low).clamp(min=1e-12), 0)

    def _add_histogram(self, event: Histogram) -> None:
        counts, edges = np.asarray(event.counts), np.asarray(event.edges)
        middles = (edges[1:] + edges[:-1]) / 2
        self._writer.add_histogram_raw(
            f"weights/{event.name}",
            min=float(edges[0]),
            max=float(edges[-1]),
            num=int(counts.sum()),
            sum=float(counts @ middles),
            sum_squares=float(counts @ middles**2),
            bucket_limits=edges[1:].tolist(),
            bucket_counts=counts.tolist(),
            global_step=event.step,
        )

    @contextmanager
    def _listen(self) -> Iterator[None]:
        with listen(self):
            yield

    def close(self) -> None:
        """Write out what is still held."""
        self._writer.close()

    def __enter__(self) -> Self:
        self._listening.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.__exit__(kind, error, trace)
        self.close()


@contextmanager
def _quiet() -> Iterator[None]:
    """torch's tracing for the graph is deprecated, and tensorboard's imports warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
