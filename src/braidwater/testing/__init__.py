"""Conformance suites that are shipped, so that whoever writes an aggregate, a table, an engine or a strategy can run them.

They need the packages of the extra ``[test]``.
"""

from braidwater.testing.aggregates import AGGREGATE_CHECKS, AggregateExample
from braidwater.testing.engines import ENGINE_CHECKS
from braidwater.testing.tables import TABLE_CHECKS

__all__ = ["AGGREGATE_CHECKS", "ENGINE_CHECKS", "TABLE_CHECKS", "AggregateExample"]
