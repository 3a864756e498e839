"""A trace of some steps: what torch's profiler saw, for chrome://tracing, Perfetto or TensorBoard's trace viewer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

SKIPPED, WARM, TRACED = 3, 1, 8  # steps


@contextmanager
def profiled(folder: str | None, rank: int) -> Iterator[Callable[[], None]]:
    """Trace a few steps into ``folder/worker-<rank>.json``. What is yielded is to be called after each step."""
    if folder is None:
        yield _nothing
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    path = Path(folder) / f"worker-{rank}.json"
    with profile(
        activities=activities,
        schedule=schedule(skip_first=SKIPPED, wait=0, warmup=WARM, active=TRACED, repeat=1),
        on_trace_ready=lambda found: found.export_chrome_trace(str(path)),
    ) as profiler:
        yield profiler.step


def _nothing() -> None:
    pass
