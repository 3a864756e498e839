"""``parfor``: turns that do not depend on one another, run at the same time where that is estimated to be faster.

`dependencies` finds out whether they do, `plan` chooses threads, processes or neither, `turns` runs one turn and puts its results
into place, `threads` and `processes` run many.
"""

from braidwater.dml.interpreter.parfor.loop import run_parfor

__all__ = ["run_parfor"]
