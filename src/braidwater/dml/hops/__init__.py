"""High-level operators: the graph between the language and its execution."""

from braidwater.dml.hops.facts import Facts
from braidwater.dml.hops.node import Dag, Hop, reachable, to_text

__all__ = ["Dag", "Facts", "Hop", "reachable", "to_text"]
