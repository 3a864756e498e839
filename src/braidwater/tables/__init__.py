"""Tables: a place plus a query, read as a stream where the rows lie."""

from braidwater.tables.address import table
from braidwater.tables.base import ColumnStatistics, Partition, Table, TableStatistics
from braidwater.tables.computed import ComputedTable
from braidwater.tables.split import train_test_split
from braidwater.tables.write import write_table

__all__ = [
    "ColumnStatistics",
    "ComputedTable",
    "Partition",
    "Table",
    "TableStatistics",
    "table",
    "train_test_split",
    "write_table",
]
