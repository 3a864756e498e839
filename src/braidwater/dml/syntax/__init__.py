"""The language's text: tokens, tree, places. Free of anything that computes."""

from braidwater.dml.syntax.nodes import Script
from braidwater.dml.syntax.parser import parse
from braidwater.dml.syntax.span import Source, Span

__all__ = ["Script", "Source", "Span", "parse"]
