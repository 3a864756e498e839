"""Which rows of a picture a worker needs that another one holds. Pure arithmetic: nothing here talks.

A picture of some height is cut into regions of nearly equal height, one a worker, before and after every layer. A sliding
layer (convolution, pooling) that makes a worker's output rows needs input rows around those of its own region: the halo.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from braidwater.parallel.parts import cut

Span = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """How a sliding layer moves down a picture, in rows; `before` and `after` are its padding above and below."""

    kernel: int
    stride: int = 1
    before: int = 0
    after: int = 0
    dilation: int = 1

    def outputs(self, height: int) -> int:
        """The height of the output of a picture of `height`."""
        return (height + self.before + self.after - self.dilation * (self.kernel - 1) - 1) // self.stride + 1

    def inputs(self, outputs: Span) -> Span:
        """The input rows that the output rows ``[begin, end)`` are made of; rows below 0 or past the height are padding.

        >>> Window(kernel=3, before=1, after=1).inputs((4, 8))
        (3, 9)
        """
        begin, end = outputs
        reach = self.dilation * (self.kernel - 1)
        return begin * self.stride - self.before, (end - 1) * self.stride - self.before + reach + 1


def inside(span: Span, height: int) -> Span:
    """The rows of `span` that are rows of a picture of `height`."""
    begin = min(max(span[0], 0), height)
    return begin, max(min(span[1], height), begin)


def needs(window: Window, height: int, workers: int) -> list[Span]:
    """The input rows that each worker needs for its region of the output.

    >>> needs(Window(kernel=3, before=1, after=1), height=8, workers=2)
    [(0, 5), (3, 8)]
    """
    outputs = window.outputs(height)
    return [inside(window.inputs(cut(outputs, part, workers)), height) for part in range(workers)]


def moved(height: int, needed: list[Span], source: int, target: int) -> Span:
    """The rows that worker `source` holds and `target` needs; none where it begins at its end or later."""
    begin, end = cut(height, source, len(needed))
    return max(begin, needed[target][0]), min(end, needed[target][1])


def most_moved(height: int, needed: list[Span]) -> int:
    """The most rows that one worker sends to one other.

    >>> most_moved(8, needs(Window(kernel=3, before=1, after=1), height=8, workers=2))
    1
    """
    workers = range(len(needed))
    spans = (moved(height, needed, source, target) for source in workers for target in workers if source != target)
    return max((end - begin for begin, end in spans if end > begin), default=0)


@dataclass(frozen=True)
class HaloLayer:
    """A sliding layer at work: its window, the height of its input, and the bytes of one row of it over all of a mini-batch.

    The gradient of its input travels back where `backward`.
    """

    window: Window
    height: int
    row_bytes: int
    backward: bool = True


def predict_halo_bytes(layers: Iterable[HaloLayer], workers: int) -> list[int]:
    """The bytes that each worker sends in a step, forward and backward.

    A worker sends the rows of its own region that others need, and the gradients of the rows that it got:

    >>> layer = HaloLayer(Window(kernel=3, before=1, after=1), height=8, row_bytes=100)
    >>> predict_halo_bytes([layer], workers=2)
    [200, 200]
    """
    sent = [0] * workers
    for layer in layers:
        needed = needs(layer.window, layer.height, workers)
        for source in range(workers):
            for target in range(workers):
                begin, end = moved(layer.height, needed, source, target)
                if source != target and begin < end:
                    sent[source] += (end - begin) * layer.row_bytes
                    sent[target] += (end - begin) * layer.row_bytes * layer.backward
    return sent
