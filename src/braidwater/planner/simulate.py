"""What training would cost on a cluster that is not here: the planner's formulas with a network's figures.

Strong scaling cuts one batch into ever smaller parts; weak scaling gives every worker the same number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from braidwater.errors import OptionError
from braidwater.options import format_bytes
from braidwater.planner.base import Layer
from braidwater.planner.cluster import Cluster
from braidwater.planner.strategies import Net, Price, cost_of
from braidwater.planner.tree import format_seconds

Scaling = Literal["strong", "weak"]
WORKERS = tuple(1 << power for power in range(11))


@dataclass(frozen=True)
class Model:
    """A net in figures: bytes of its weights, operations of forward and backward of a row, bytes that a row's activations take.

    Without `layers` it counts as `depth` equal ones, between which `between` bytes of a row pass (a seventeenth of a layer's
    activations, where left out: Korthikanti et al. 2022, arXiv 2205.05198, table 2, for transformers without attention's
    matrices). `moments` are numbers that the optimiser keeps for each weight.
    """

    name: str
    weights: int
    flops_per_row: float
    activations: int = 0
    layers: tuple[Layer, ...] = ()
    moments: int = 2
    depth: int = 16
    between: int | None = None

    def __post_init__(self) -> None:
        if self.weights < 1:
            raise OptionError("weights", self.weights, "the bytes of the weights, at least 1")
        if not self.flops_per_row > 0:
            raise OptionError("flops_per_row", self.flops_per_row, "above 0")
        if self.depth < 1:
            raise OptionError("depth", self.depth, "at least 1 layer")

    def net(self, cluster: Cluster, rows: int) -> Net:
        """A step of `rows` rows on a worker of `cluster`."""
        row = self.flops_per_row / cluster.flops
        update = (3 + self.moments) * self.weights / cluster.memory_rate
        layers = self.layers or _equal_layers(self)
        return Net(
            rows, row, 0.0, update, rows * row + update, self.weights, self.activations, self.moments, layers, 100
        )


def _equal_layers(model: Model) -> tuple[Layer, ...]:
    """Blocks of a transformer: attention and a pair of linear layers, each an all-reduce forward and one backward."""
    between = model.activations // model.depth // 17 if model.between is None else model.between
    one = Layer(
        name="",
        share=1 / model.depth,
        parameters=model.weights // model.depth,
        output=between,
        parted=True,
        parted_output=True,
        exchanged=4 * between,
        messages=4,
    )
    return tuple(replace(one, name=f"block {k + 1}", block=f"block {k + 1}") for k in range(model.depth))


@dataclass(frozen=True)
class Point:
    """A strategy on so many workers. Seconds are of a step, `rows_per_second` of all workers; `efficiency` is the speed-up
    over one worker, divided by the workers. `refused` says why it cannot run; the figures are 0 then."""

    strategy: str
    workers: int
    rows: int
    seconds: float = 0.0
    compute: float = 0.0
    exchange: float = 0.0
    rows_per_second: float = 0.0
    speed_up: float = 0.0
    efficiency: float = 0.0
    step_bytes: int = 0
    worker_bytes: int = 0
    refused: str = ""


@dataclass(frozen=True)
class Simulation:
    """Scaling curves. `str()` is a table for people, `to_json()` the same for programs."""

    model: Model
    cluster: Cluster
    scaling: Scaling
    points: tuple[Point, ...]

    def of(self, strategy: str) -> list[Point]:
        """The points of one strategy that can run, by workers."""
        return [point for point in self.points if point.strategy == strategy and not point.refused]

    @property
    def strategies(self) -> list[str]:
        return list(dict.fromkeys(point.strategy for point in self.points))

    def to_json(self) -> dict[str, Any]:
        cluster, model = asdict(self.cluster), asdict(self.model)
        points = [asdict(point) for point in self.points]
        return {"model": model, "cluster": cluster, "scaling": self.scaling, "points": points, "text": str(self)}

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def simulate(
    model: Model,
    cluster: Cluster,
    *,
    batch: int,
    strategies: Sequence[str] = ("all_reduce",),
    workers: Sequence[int] = WORKERS,
    scaling: Scaling = "strong",
    options: Mapping[str, Any] | None = None,
    memory: int | None = None,
) -> Simulation:
    """Step times of `model` under each strategy for each number of workers.

    `batch` are the rows of a step over all workers ("strong"), or those of each worker ("weak"). `options` are those of the
    strategies by name, for all that have them (``{"micro_batches": 32, "every": 100}``). What needs more than `memory`
    bytes on a worker is refused, as is a part of a step without rows.

    >>> net = Model("ResNet-50", weights=102_000_000, flops_per_row=24e9)
    >>> found = simulate(net, Cluster(bandwidth=6.25e9, latency=10e-6, flops=5e12), batch=32, scaling="weak", workers=[1, 8])
    >>> [round(point.efficiency, 2) for point in found.points]
    [1.0, 0.96]
    """
    if batch < 1:
        raise OptionError("batch", batch, "at least 1 row")
    if not workers or min(workers) < 1:
        raise OptionError("workers", list(workers), "numbers from 1 on")
    if scaling not in ("strong", "weak"):
        raise OptionError("scaling", scaling, "strong or weak")
    points = [
        _point(model, cluster, name, count, batch * (count if scaling == "weak" else 1), options or {}, memory)
        for name in strategies
        for count in workers
    ]
    single = model.net(cluster, batch)
    return Simulation(
        model, cluster, scaling, tuple(_compared(point, batch / single.alone_seconds) for point in points)
    )


def _point(
    model: Model, cluster: Cluster, name: str, workers: int, rows: int, options: Mapping[str, Any], memory: int | None
) -> Point:
    cost = cost_of("single" if workers == 1 else name)
    own = {option: value for option, value in options.items() if option in cost.defaults}
    own = dict(cost.for_workers(own, workers))
    net = model.net(cluster, rows)
    price = cost.price(net, cluster, workers, own)
    refused = price.refused or _refused(price, rows, workers, memory)
    if refused:
        return Point(name, workers, rows, refused=refused)
    return Point(
        strategy=name,
        workers=workers,
        rows=rows,
        seconds=price.seconds,
        compute=price.compute,
        exchange=price.exchange,
        step_bytes=int(price.sent),
        worker_bytes=sum(price.memory.values()),
    )


def _refused(price: Price, rows: int, workers: int, memory: int | None) -> str:
    held = sum(price.memory.values())
    if memory is not None and held > memory:
        return f"a worker needs {format_bytes(held)}, {format_bytes(memory)} may be used"
    if price.rows == 0 and rows < workers:
        return f"a step has {rows} rows, fewer than workers"
    return ""


def _compared(point: Point, alone: float) -> Point:
    """The same beside one worker, which does `alone` rows a second."""
    if point.refused:
        return point
    speed = point.rows / point.seconds
    ratio = speed / alone
    return replace(point, rows_per_second=speed, speed_up=ratio, efficiency=ratio / point.workers)


_WIDTHS = (9, 11, 11, 11, 13, 10, 12, 13, 12)
_HEADS = ("workers", "a step", "compute", "exchange", "rows/s", "speed-up", "efficiency", "sent a step", "a worker")


def _lines(found: Simulation) -> Iterator[str]:
    model, cluster = found.model, found.cluster
    yield (
        f"{model.name}: {format_bytes(model.weights)} of weights, {model.flops_per_row:.3g} operations a row, "
        f"{format_bytes(model.activations)} of activations"
    )
    yield (
        f"{cluster.flops:.3g} operations a second and worker; {cluster.topology} of {format_bytes(cluster.bandwidth)}/s, "
        f"{cluster.latency * 1e6:.3g} us; {found.scaling} scaling"
    )
    for name in found.strategies:
        yield ""
        yield name
        yield "".join(f"{head:>{width}}" for head, width in zip(_HEADS, _WIDTHS, strict=True))
        for point in (one for one in found.points if one.strategy == name):
            yield _line(point)


def _line(point: Point) -> str:
    if point.refused:
        return f"{point.workers:>{_WIDTHS[0]}}  not possible: {point.refused}"
    cells = (
        str(point.workers),
        format_seconds(point.seconds),
        format_seconds(point.compute),
        format_seconds(point.exchange),
        f"{point.rows_per_second:,.0f}",
        f"{point.speed_up:.1f}",
        f"{point.efficiency:.0%}",
        format_bytes(point.step_bytes),
        format_bytes(point.worker_bytes),
    )
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS, strict=True))
