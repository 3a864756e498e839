"""Workers that are processes of one machine: they share its cores and its memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from braidwater.planner.constants import Machine
from braidwater.planner.strategies.base import Place, Transport

SMALL_ROWS, LARGE_ROWS = 16, 256  # of the steps between which the contention is measured


@dataclass(frozen=True)
class ThisMachine(Place):
    """The measured constants as a place. Exchanges cost the cores their time, so a backward pass hides none of them: their
    threads even wait until a core is free.
    """

    machine: Machine
    one_machine = True

    def contention(self, workers: int, rows: float) -> float:
        """kappa: measured on two processes, for a small and a large step; in between by the logarithm of the rows."""
        if workers == 1:
            return 1.0
        machine = self.machine
        place = math.log(max(rows, 1) / SMALL_ROWS) / math.log(LARGE_ROWS / SMALL_ROWS)
        place = min(max(place, 0.0), 1.0)
        pair = machine.contention_small + place * (machine.contention - machine.contention_small)
        return pair * workers / min(workers, machine.cores)

    def meeting(self, compute: float) -> float:
        return self.machine.meeting * math.sqrt(compute)

    def all_reduce(self, size: float, workers: int, messages: int = 1, transport: Transport = "gloo") -> float:
        return self._collective(size, workers, messages, self.machine.collective_byte, transport)

    def all_gather(self, size: float, workers: int, messages: int = 1, transport: Transport = "gloo") -> float:
        return self._collective(size, workers, messages, self.machine.gather_byte, transport)

    def reduce_scatter(self, size: float, workers: int, messages: int = 1) -> float:
        return self._collective(size, workers, messages, self.machine.scatter_byte)

    def send(self, size: float, messages: int = 1, transport: Transport = "gloo") -> float:
        if transport == "shared_memory":
            return messages * self.machine.shared_latency + size * self.machine.shared_byte
        return messages * self.machine.send_latency + size * self.machine.send_byte

    def exposed(self, exchange: float, backward: float, buckets: int) -> float:
        return exchange + self.machine.background_wait if exchange else 0.0

    def pass_over(self, size: float) -> float:
        return 2 * size / self.machine.memory_rate

    def _collective(
        self, size: float, workers: int, messages: int, byte: float, transport: Transport = "gloo"
    ) -> float:
        """Measured between two; a ring of n takes n - 1 turns of a latency each, and hands on (n - 1) / n of the bytes."""
        if workers == 1:
            return 0.0
        latency = self.machine.collective_latency
        if transport == "shared_memory":
            latency, byte = self.machine.shared_latency, self.machine.shared_byte
        return messages * latency * (workers - 1) + 2 * (workers - 1) / workers * size * byte
