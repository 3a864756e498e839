"""The local engine: threads over blocks, processes for gangs and tasks, on this machine."""

from braidwater.engines.local.engine import LocalEngine

__all__ = ["LocalEngine"]
