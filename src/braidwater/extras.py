"""Which extra of the installation brings an optional package, and what to say where it is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from braidwater.errors import UnsupportedError

EXTRAS = {
    "torch": ("deep", "deep nets"),
    "torchmetrics": ("deep", "metrics of deep nets"),
    "optuna": ("search", "searching over models"),
    "psycopg": ("postgres", "PostgreSQL and Greenplum"),
    "adbc_driver_manager": ("postgres", "PostgreSQL tables as Arrow data"),
    "adbc_driver_postgresql": ("postgres", "PostgreSQL tables as Arrow data"),
    "pyspark": ("spark", "Spark"),
    "h5py": ("hdf5", "HDF5 files"),
    "tensorboard": ("tensorboard", "curves in TensorBoard"),
}
"""The module that is imported, the extra that brings it, and what for."""


def how_to_install(package: str) -> str:
    """The command that brings a package.

    >>> how_to_install("torch"), how_to_install("pandas")
    ("pip install 'braidwater[deep]'", 'pip install pandas')
    """
    return f"pip install 'braidwater[{EXTRAS[package][0]}]'" if package in EXTRAS else f"pip install {package}"


@contextmanager
def needed_for(what: str) -> Iterator[None]:
    """Raise `UnsupportedError` with the command to run where a package of an extra is missing inside.

    Any other module that cannot be found is somebody's mistake and stays a `ModuleNotFoundError`.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise UnsupportedError(f"{what} needs {package}: {how_to_install(package)}.") from error
