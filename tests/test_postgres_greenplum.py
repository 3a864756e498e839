"""The statements for Greenplum, as text: there is no such server here."""

from __future__ import annotations

import pyarrow as pa
import sqlglot
from psycopg import sql
from sqlglot import exp

from braidwater.engines.postgres.form import PackedColumn
from braidwater.engines.postgres.greenplum import Greenplum
from braidwater.engines.postgres.server import of_version
from braidwater.tables.postgres import content_query, has_page_ranges

SEVEN = "PostgreSQL 12.12 (Greenplum Database 7.1.0 build commit:e7c2b1f136) on x86_64-pc-linux-gnu, compiled by gcc, 64-bit"
FIFTEEN = "PostgreSQL 15.6 (Debian 15.6-0+deb12u1) on x86_64-pc-linux-gnu, compiled by gcc, 64-bit"


class Columns:
    """What a statement needs of a table."""

    def value(self, name: str) -> exp.Expression:
        return exp.column(name, quoted=True)


def test_the_version_chooses_the_statements():
    assert (of_version(SEVEN).name, of_version(FIFTEEN).name) == ("Greenplum", "PostgreSQL")
    assert of_version(SEVEN).oldest < 120012 < of_version(FIFTEEN).oldest
    assert (has_page_ranges(SEVEN), has_page_ranges(FIFTEEN), has_page_ranges("PostgreSQL 18beta1")) == (
        False,
        True,
        True,
    )


def test_packed_blocks_are_made_by_one_scan_and_spread_over_the_segments():
    place = sql.Identifier("braidwater", "blocks_1")
    made = Greenplum().create_blocks(place).as_string()
    assert made.startswith('CREATE UNLOGGED TABLE "braidwater"."blocks_1" (number int4 NOT NULL')
    assert ") DISTRIBUTED BY (number); ALTER TABLE" in made
    assert "DISTRIBUTED" not in of_version(FIFTEEN).create_blocks(place).as_string()
    columns = [PackedColumn("x", pa.float64(), "float8", nullable=False)]
    packing = Greenplum().packing_query(Columns(), columns, sql.SQL('"flights"'), 100, 8).as_string()
    assert packing == (
        "SELECT (row_number() OVER (ORDER BY p.segment, p.part) - 1)::int4 AS number, p.rows, p.data FROM "
        "(SELECT gp_segment_id AS segment, ((ctid::text::point)[0])::bigint / 8 AS part, count(*)::int4 AS rows, "
        "CAST(ARRAY[COALESCE(STRING_AGG(FLOAT8SEND(\"x\"), CAST(NULL AS BYTEA)), CAST('\\x' AS BYTEA))] AS BYTEA[]) AS data "
        'FROM "flights" GROUP BY 1, 2) AS p'
    )
    parsed = sqlglot.parse_one(packing, dialect="postgres")
    assert parsed.find(exp.Lateral) is None  # which Greenplum cannot join to rows of other segments


def test_how_to_get_pl_python_is_told_as_the_server_has_it():
    assert of_version(FIFTEEN).how_to_get_python(150006) == "apt-get install postgresql-plpython3-15"
    assert "apt-get" not in of_version(SEVEN).how_to_get_python(120012)


def test_passes_and_facts_run_on_each_segment():
    blocks = sql.Identifier("braidwater", "blocks_1")
    assert Greenplum().aggregate(blocks).as_string() == (
        'SELECT "braidwater".aggregate(number, rows, data, %b) FROM "braidwater"."blocks_1" GROUP BY gp_segment_id'
    )
    assert Greenplum().facts().as_string() == "SELECT \"braidwater\".facts() FROM gp_dist_random('gp_id')"


def test_a_digest_of_rows_knows_their_segment_and_needs_no_function_of_later_servers():
    text = content_query(SEVEN, '"flights"')
    assert "CONCAT_WS(' ', gp_segment_id, ctid, xmin)" in text
    assert "HASHTIDEXTENDED" not in text
    assert "BIT_XOR" not in text
    assert "HASHTIDEXTENDED" in content_query(FIFTEEN, '"flights"')
