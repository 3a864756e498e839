"""A cluster that is not here: workers with an accelerator each, a network of known bandwidth and latency."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from braidwater.errors import OptionError
from braidwater.planner.strategies.base import BUCKET_BYTES, Place, Transport

Topology = Literal["ring", "tree", "hierarchical"]


@dataclass(frozen=True)
class Cluster(Place):
    """`bandwidth` (bytes a second) and `latency` (seconds) are of a node's line to the network, those called `node` of the
    lines inside a node of `node_workers` workers. `flops` are operations a second that a worker reaches in training.

    All-reduce of b bytes over n workers, w to a node:

    - "ring": ``2 (n - 1)/n b / bandwidth + 2 (n - 1) latency`` (Patarasuk and Yuan 2009). A ring through the nodes enters
      and leaves each of them once, so that the line of a node carries what a worker sends;
    - "tree": ``2 b / bandwidth + 2 log2(n) latency``, two trees of pipelined pieces (Sanders, Speck and Träff 2009; NCCL's);
    - "hierarchical": a reduce-scatter inside the nodes, a ring over the nodes, an all-gather inside the nodes.

    With `overlap` gradients travel while the backward pass computes, in buckets: what remains is the larger of the two, and
    a bucket (Li et al. 2020, arXiv 2006.15704, section 3.2.3). `jitter` is the standard deviation of a step's time over its
    mean: the slowest of n workers is about ``1 + jitter sqrt(2 ln n)`` late.
    """

    bandwidth: float
    latency: float
    flops: float = 1.0
    memory_rate: float = 500e9
    topology: Topology = "ring"
    node_workers: int = 1
    node_bandwidth: float = 20e9
    node_latency: float = 5e-6
    overlap: bool = True
    jitter: float = 0.0
    bucket_bytes: int = BUCKET_BYTES
    one_machine = False

    def __post_init__(self) -> None:
        for name in ("bandwidth", "flops", "memory_rate", "node_bandwidth"):
            if not getattr(self, name) > 0:
                raise OptionError(name, getattr(self, name), "above 0")
        for name in ("latency", "node_latency", "jitter"):
            if not getattr(self, name) >= 0:
                raise OptionError(name, getattr(self, name), "0 or more")
        if self.topology not in ("ring", "tree", "hierarchical"):
            raise OptionError("topology", self.topology, "one of ring, tree, hierarchical")
        if self.node_workers < 1:
            raise OptionError("node_workers", self.node_workers, "at least 1")

    def contention(self, workers: int, rows: float) -> float:
        return 1.0 if workers == 1 else 1 + self.jitter * math.sqrt(2 * math.log(workers))

    def all_reduce(self, size: float, workers: int, messages: int = 1, transport: Transport = "gloo") -> float:
        if workers == 1:
            return 0.0
        if workers <= self.node_workers:
            return 2 * self._ring(size, workers, messages, inside=True)
        match self.topology:
            case "tree":
                return 2 * size / self.bandwidth + messages * 2 * math.log2(workers) * self.latency
            case "hierarchical":
                nodes = math.ceil(workers / self.node_workers)
                inside = 2 * self._ring(size, self.node_workers, messages, inside=True)
                return inside + 2 * self._ring(size, nodes, messages)
        return 2 * self._ring(size, workers, messages)

    def all_gather(self, size: float, workers: int, messages: int = 1, transport: Transport = "gloo") -> float:
        return self._ring(size, workers, messages, inside=workers <= self.node_workers)

    def reduce_scatter(self, size: float, workers: int, messages: int = 1) -> float:
        return self._ring(size, workers, messages, inside=workers <= self.node_workers)

    def send(self, size: float, messages: int = 1, transport: Transport = "gloo") -> float:
        return messages * self.latency + size / self.bandwidth

    def exposed(self, exchange: float, backward: float, buckets: int) -> float:
        """A bucket can leave when its share of the backward pass is done, and the last one when all of it is."""
        if not self.overlap:
            return exchange
        return max(exchange / buckets, exchange - backward * (1 - 1 / buckets))

    def pass_over(self, size: float) -> float:
        return 2 * size / self.memory_rate

    def _ring(self, size: float, workers: int, messages: int, inside: bool = False) -> float:
        """One turn around a ring: each of n parts is handed on n - 1 times."""
        bandwidth = self.node_bandwidth if inside else self.bandwidth
        latency = self.node_latency if inside else self.latency
        return (workers - 1) / workers * size / bandwidth + messages * (workers - 1) * latency
