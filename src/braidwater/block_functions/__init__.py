"""Plain functions of arrays over the blocks of any table, on any engine.

::

    from braidwater import block_functions as bf

    def scaled(x, mean):                       # an argument is the column of its name, or a constant
        return {"z": x - mean}

    bf.map_blocks(scaled, table, constants={"mean": 3.0})            # a table with the column z, lazily
    bf.reduce_blocks(lambda x_input: {"x": x_input.sum(0)}, table)   # {"x": array(...)}
"""

from braidwater.block_functions.maps import map_blocks, map_rows
from braidwater.block_functions.reductions import aggregate, reduce_blocks, reduce_rows
from braidwater.block_functions.shapes import ColumnShape, TableShapes, analyze, print_schema, schema

__all__ = [
    "ColumnShape",
    "TableShapes",
    "aggregate",
    "analyze",
    "map_blocks",
    "map_rows",
    "print_schema",
    "reduce_blocks",
    "reduce_rows",
    "schema",
]
