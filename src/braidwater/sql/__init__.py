"""MADlib's functions, with MADlib's names, on the embedded DuckDB and on PostgreSQL.

::

    import braidwater.sql

    session = braidwater.sql.connect("houses.duckdb")
    session.execute("SELECT madlib.linregr_train('houses', 'model', 'price', 'ARRAY[1, tax, bath, size]', 'bedroom')")
    session.execute("SELECT * FROM model ORDER BY bedroom").fetchall()
"""

from braidwater.sql.connection import Connection, connect

__all__ = ["Connection", "connect"]
