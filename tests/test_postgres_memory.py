"""Rows that leave the server pass through bounded memory, whichever way they are read.

Measured beside 64 MB that may be held: 48 MB in Arrow form, 66 MB as packed blocks, 70 MB packed on the way.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from braidwater.engines.postgres.install import install

ROWS = 2_000_000  # of 20 doubles: 320 MB in the server, five times what may be held
BOUND = 64_000_000
# what libpq and psycopg hold of the packed blocks under way, two streams of 2 MB each, whatever the size of the table
COPIED = 12_000_000

PROGRAM = f"""
import resource, sys
import numpy as np, torch  # what a gang's client has loaded before it reads
from braidwater import options, table
from braidwater.blocks import BlockSource
from braidwater.encoding import Encoding
from braidwater.engines import LocalEngine
from braidwater.engines.postgres import PostgresEngine
from braidwater.engines.postgres.packing import pack
from braidwater.engines.postgres.sessions import open_session

address, way, cache = sys.argv[1:]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
with options(memory={BOUND}, workers=2, cache_directory=cache):
    small, rows = (table(f"{{address}}::{{name}}") for name in ("few", "many"))
    for one in (small, rows):
        if way == "packed":
            with open_session(address) as session:
                pack(session, one, one.column_names)
        encoding = Encoding(features=one.column_names).fit(one)
        engine = PostgresEngine(address, 2, executor="copy") if way != "arrow" else LocalEngine(2)
        before = peak()
        with BlockSource(one, encoding, passes=2, cache="disk") as source:
            assert engine.materialise(source).rows == one.statistics([]).rows
            if way == "stream":
                from braidwater.engines.base import Nothing
                with BlockSource(one, encoding, passes=1) as again:
                    engine.aggregate(again, Nothing())
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["arrow", "packed", "stream"])
def test_a_table_of_five_times_the_memory_is_read_within_it(server, tmp_path, way):
    """As Arrow through ADBC, as blocks that are packed already, and packed on the way; a small table comes first, so that
    what libraries load is not counted.
    """
    if not server.run("SELECT 1 FROM pg_database WHERE datname = 'wide'"):
        server.run("CREATE DATABASE wide")
        install(server.address("wide"))
        columns = ", ".join(f"random() AS x{number}" for number in range(20))
        for name, rows in (("few", 1000), ("many", ROWS)):
            server.run(f"CREATE TABLE {name} AS SELECT {columns} FROM generate_series(1, {rows})", database="wide")
            server.run(f"VACUUM ANALYZE {name}", database="wide")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, server.address("wide"), way, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    print(way, int(done.stdout) / 1e6, "MB")
    assert 0 <= int(done.stdout) < BOUND + (0 if way == "arrow" else COPIED)
