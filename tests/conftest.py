"""What all tests share: caches in a folder of their own, and the real data sets when they are there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from braidwater.options import options

pytest_plugins = ["postgres_server"]

# A busy machine is no reason to fail, and the same commit has the same examples: whoever looks for new ones says
# HYPOTHESIS_PROFILE=explore.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with options(cache_directory=tmp_path_factory.mktemp("cache"), workers=2):
        yield


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets; tests that need it are skipped where it is not there."""
    folder = os.environ.get("BRAIDWATER_DATA")
    if not folder:
        pytest.skip("BRAIDWATER_DATA is not set")
    return Path(folder)
