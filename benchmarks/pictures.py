"""Fashion-MNIST and CIFAR-10 as Parquet files, from the folder that BRAIDWATER_DATA names.

A picture is the bytes of a row, channels first; ``class`` is a number from 0 to 9.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SHAPES = {"fashion": (28, 28), "cifar": (3, 32, 32)}


def write_pictures(folder: Path, rows: dict[str, int], test_rows: int) -> None:
    """``NAME.parquet`` in random order, ``NAME-sorted.parquet`` by class, ``NAME-test.parquet``; none where there are no data."""
    folder.mkdir(parents=True, exist_ok=True)
    source = Path(os.environ.get("BRAIDWATER_DATA", ""))
    readers = {"fashion": (_fashion, source / "fashion_mnist"), "cifar": (_cifar, source / "cifar10_jpeg")}
    for name, (read, place) in readers.items():
        if not place.is_dir():
            continue
        pixels, classes = read(place, "train", rows[name])
        order = np.argsort(classes, kind="stable")
        _write(folder / f"{name}.parquet", pixels, classes)
        _write(folder / f"{name}-sorted.parquet", pixels[order], classes[order])
        _write(folder / f"{name}-test.parquet", *read(place, "test", test_rows))


def file_of(folder: Path, name: str) -> str:
    """The address of a file that `write_pictures` wrote."""
    file = folder / f"{name}.parquet"
    if not file.exists():
        raise ModuleNotFoundError(name=f"{name} (BRAIDWATER_DATA)")  # the harness leaves the contender out
    return str(file)


def _write(file: Path, pixels: Any, classes: Any) -> None:
    rows = {"picture": pa.array([one.tobytes() for one in pixels]), "class": classes}
    pq.write_table(pa.table(rows), file, row_group_size=4096)


def _fashion(folder: Path, part: str, count: int) -> tuple[Any, Any]:
    """The first images ``(count, 28, 28)``, which come in random order."""
    kind = "train" if part == "train" else "t10k"

    def read(what: str, header: int) -> Any:
        with gzip.open(folder / f"{kind}-{what}-ubyte.gz") as file:
            return np.frombuffer(file.read()[header:], np.uint8)

    return read("images-idx3", 16).reshape(-1, 28, 28)[:count], read("labels-idx1", 8)[:count]


def _cifar(folder: Path, part: str, count: int) -> tuple[Any, Any]:
    """``(count, 3, 32, 32)``, as many of each class, in random order."""
    from PIL import Image

    names: list[str] = []
    pixels, classes, seen = [], [], [0] * 10
    with tarfile.open(folder / "cifar10_jpeg.tar.xz") as archive:
        for member in archive:
            if not member.isfile() or not member.name.startswith(f"{part}/"):
                continue
            name = member.name.split("/")[1]
            if name not in names:
                names.append(name)
            if seen[names.index(name)] == -(-count // 10):
                continue
            file = archive.extractfile(member)
            assert file is not None
            picture = np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"))
            pixels.append(picture.transpose(2, 0, 1))
            classes.append(names.index(name))
            seen[names.index(name)] += 1
    order = np.random.default_rng(0).permutation(len(classes))[:count]
    return np.stack(pixels)[order], np.array(classes, np.uint8)[order]
