"""``parfor``: turns that do not depend on one another, run at the same time where that is estimated to be faster.

`dependencies` finds out whether they do, `measure` what they take, `plan` chooses threads, processes, tasks of an engine or none
of them; `turns` runs one turn and puts its results into place, `threads` and `tasks` run many. `handing_over` brings the script
and its variables to processes.
"""

from braidwater.dml.interpreter.parfor.loop import run_parfor

__all__ = ["run_parfor"]
