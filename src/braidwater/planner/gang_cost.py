"""What it costs to train a net on workers that live at the same time and talk: a strategy's formula over all steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from braidwater.blocks.mini_batches import WINDOW_BYTES, WINDOW_ROWS
from braidwater.planner.base import Layer
from braidwater.planner.cost import BLOCK_SECONDS, Cost, Job, Setting, first_pass
from braidwater.planner.strategies import Net, Price, cost_of
from braidwater.planner.this_machine import ThisMachine

HANDED_OVER = 32 * 2**20  # bytes of blocks that each process of a gang may get a copy of
INSIDE_STEP = 0.5  # of another core's speed that threads inside a step gain, for steps of a millisecond and more


@dataclass(frozen=True)
class GangCost:
    """The parts of a training: the blocks, the start of the processes, and all epochs split into computing and talking.

    `step` is the price of one step, `memory` the peak of all members by what takes it.
    """

    blocks: Cost
    start: Cost
    compute: Cost
    exchange: Cost
    steps: int  # of an epoch
    step: Price
    memory: dict[str, int]

    @property
    def total(self) -> Cost:
        return self.blocks + self.start + self.compute + self.exchange


def gang_cost(job: Job, setting: Setting) -> GangCost:
    """All epochs of `job` under `setting`."""
    work, machine, workers = job.work, job.machine, setting.workers
    net = net_of(job)
    price = cost_of(setting.strategy).price(net, ThisMachine(machine), workers, dict(setting.options))
    count = net.epoch_steps * work.passes
    memory = _memory(job, setting, price)
    peak = sum(memory.values())
    units = job.units * work.passes * BLOCK_SECONDS
    alone = net.seconds(net.step_rows) + net.update_seconds  # threads inside a step gain wall time, and no CPU time
    cpu = alone if workers == 1 else price.compute * price.busy
    start = (
        Cost(machine.start, machine.start) if price.starts and workers > 1 else Cost()
    )  # one imports, all are its forks
    return GangCost(
        first_pass(job, writing(job, setting), compute=False),
        start,
        Cost(count * price.compute + units / workers, count * cpu + units, peak, job.block_bytes * work.passes),
        Cost(count * price.exchange, count * price.exchange * workers, peak, 0, int(count * workers * price.sent)),
        net.epoch_steps,
        price,
        memory,
    )


def net_of(job: Job) -> Net:
    """The figures of a step: measured ones where there are any, else counted operations over the machine's rates."""
    work, machine = job.work, job.machine
    rows = max(work.step_rows, 1)
    rate = machine.torch_float32 * (machine.half_speed if work.half else 1.0)
    row = work.flops_per_row / rate + work.row_bytes / machine.torch_bytes
    call = machine.step_call
    update = (3 + work.moments) * work.state_bytes / machine.memory_rate  # weights, gradients and moments go by
    alone = call + rows * row / (1 + INSIDE_STEP * (machine.cores - 1)) + update
    if work.times is not None:
        call, row, update, alone = work.times.call, work.times.row, work.times.update, work.times.alone
    layers = work.layers or (Layer(work.name, 1.0, work.state_bytes, 0),)
    return Net(
        step_rows=rows,
        row_seconds=row,
        call_seconds=call,
        update_seconds=update,
        alone_seconds=alone,
        weights=work.state_bytes,
        activations=work.working_bytes / rows,
        moments=work.moments,
        layers=layers,
        epoch_steps=max(ceil(job.rows / rows), 1),
        models=work.models,
    )


def writing(job: Job, setting: Setting) -> Setting:
    """The pass that writes the blocks: on the engine's threads, however many processes train afterwards."""
    return replace(setting, workers=job.machine.cores)


def _memory(job: Job, setting: Setting, price: Price) -> dict[str, int]:
    """The peak of all members together: kept blocks, windows of rows, and what the strategy holds."""
    workers = setting.workers
    window = 2 * min(WINDOW_ROWS * job.work.row_bytes, WINDOW_BYTES, job.block_bytes)
    copies = workers if price.starts else 1
    kept = copies * job.block_bytes if setting.cache == "memory" else 0
    return {
        "kept blocks": kept,
        "windows of rows": workers * window,
        **{name: workers * size for name, size in price.memory.items()},
    }
