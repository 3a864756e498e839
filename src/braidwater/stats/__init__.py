"""Statistics of whole tables."""

from braidwater.stats.describe import ColumnDescription, Description, describe

__all__ = ["ColumnDescription", "Description", "describe"]
