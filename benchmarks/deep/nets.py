"""What the deep benchmarks have in common: rows in memory or in a block file, a net."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from braidwater.blocks import BlockColumn, BlockSchema, DiskStore, MemoryStore, Unit
from braidwater.blocks.base import Block
from braidwater.blocks.disk import DiskWriter
from braidwater.encoding.design import Design, NumberTerm, design_of

WIDTH = 100
CLASSES = 10
NAMES = [f"x{j}" for j in range(WIDTH)]
SCHEMA = BlockSchema.ordered([*(BlockColumn(name, "float32") for name in NAMES), BlockColumn("y", "uint8")])


def design() -> Design:
    return design_of([NumberTerm(tuple(NAMES), 0)], NAMES, label="y")


def arrays(rows: int) -> tuple[Any, Any]:
    """Features ``(rows, WIDTH)`` float32 and labels."""
    random = np.random.default_rng(0)
    return random.standard_normal((rows, WIDTH), dtype=np.float32), random.integers(0, CLASSES, rows)


def write_rows(folder: Path, rows: int) -> None:
    """The same rows as a block file and as arrays."""
    features, labels = arrays(rows)
    np.save(folder / "features.npy", features)
    np.save(folder / "labels.npy", labels)
    writer = DiskWriter(SCHEMA, folder / "rows.blocks")
    for number, begin in enumerate(range(0, rows, SCHEMA.unit_rows)):
        writer.put(
            (0, number), block(features[begin : begin + SCHEMA.unit_rows], labels[begin : begin + SCHEMA.unit_rows])
        )
    writer.finish()


def block(features: Any, labels: Any) -> Block:
    columns = {name: features[:, j] for j, name in enumerate(NAMES)}
    return Block.from_arrays({**columns, "y": labels.astype(np.uint8)}, SCHEMA)


def disk_store(folder: Path) -> DiskStore:
    return DiskStore(folder / "rows.blocks")


def memory_store(folder: Path) -> MemoryStore:
    """The block file's rows, in memory."""
    disk = disk_store(folder)
    buffers = [disk.read(unit.number).buffer.copy() for unit in disk.units]
    return MemoryStore(disk.schema, [Unit(u.number, u.rows, u.start) for u in disk.units], buffers)


def net(hidden: int = 320) -> Any:
    """Two hidden layers of `hidden`."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(WIDTH, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES)
    )
