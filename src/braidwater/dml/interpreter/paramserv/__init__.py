"""``paramserv``: workers that compute gradients at the same time, and a server that updates the model.

`steps` is what a worker does between two visits to the server, `crew` and `tasks` where workers run (in turns, on threads,
in processes, as tasks of an engine), `training` who waits for whom.
"""

from braidwater.dml.interpreter.paramserv.crew import Crew
from braidwater.dml.interpreter.paramserv.steps import Rows, Steps
from braidwater.dml.interpreter.paramserv.training import Server, train, visits_of
from braidwater.dml.interpreter.parfor.tasks import way_of

__all__ = ["Crew", "Rows", "Server", "Steps", "train", "visits_of", "way_of"]
