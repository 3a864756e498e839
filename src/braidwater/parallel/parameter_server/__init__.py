"""Parameter servers: workers push gradients to where the weights lie, and pull weights from there, waiting for nobody."""

from braidwater.parallel.parameter_server.strategy import ParameterServer

__all__ = ["ParameterServer"]
