"""How the trials of a search share their passes: what can be shared, what each way costs, and the way that is taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

from braidwater.engines import Engine, LocalEngine, RunningTasks, Task
from braidwater.errors import BraidwaterError, OptionError, UnsupportedError
from braidwater.estimators.base import TableEstimator
from braidwater.model_selection.space import Choice
from braidwater.model_selection.trial_run import ROLES, Setup
from braidwater.model_selection.variants import fit_arguments, is_trainer, variant
from braidwater.options import current_options
from braidwater.planner import REFERENCE, stored_machine
from braidwater.planner.constants import available_memory
from braidwater.planner.cost import Job
from braidwater.planner.many_trials import BUNDLE, Sharing, TrialsPlan, plan_trials

if TYPE_CHECKING:
    from braidwater.encoding import FittedEncoding
    from braidwater.model_selection.fused.estimators import Scan
    from braidwater.model_selection.searching import _Plan

FusedChoice = bool | Literal["auto", "lockstep", "circular"]
_CODED = ("nulls", "coding")  # hyperparameters that change what lies in the blocks


@dataclass(frozen=True)
class SharedPasses:
    """The way of the trials of a search. `plan` is None where nothing can be shared, and `why` says so."""

    way: Sharing
    places: int
    plan: TrialsPlan | None = None
    why: str = ""
    size: int = 0  # of a bundle
    common: Scan | None = None  # what all riders read
    hops: bool = False  # trainers hop over parted rows

    @property
    def encoding(self) -> FittedEncoding | None:
        """Of the blocks that all trials read; None where each has its own."""
        return self.common.encoding if self.way == "circular" and self.common is not None else None

    def __str__(self) -> str:
        if self.hops:
            return f"trainers hop over {self.places} partitions of the rows, each worker reading its own"
        if self.plan is not None:
            return str(self.plan)
        if self.way == "lockstep":
            return f"trials are trained in bundles of up to {min(self.size, BUNDLE)}, nets stacked"
        return f"{self.places} trials at a time, each in a process of its own: {self.why}"

    def tasks(self, trials: Iterator[Task | None], setup: Setup, engine: Engine) -> RunningTasks:
        """The trials under way."""
        if self.way == "lockstep":
            from braidwater.model_selection.fused.bundles import BundledTasks

            return BundledTasks(trials, setup, engine, self.size)
        if self.way == "circular":
            from braidwater.model_selection.fused.riding import CircularTasks

            assert self.common is not None
            return CircularTasks(trials, setup, self.common, engine, self.places, current_options().workers)
        return engine.tasks(trials)


def shared_passes(
    plan: _Plan, setup: Setup, places: int, engine: Engine, timeout: float | None, wish: FusedChoice
) -> SharedPasses:
    """The cheapest way, or the one that is wished for. Nothing runs; encoders are fitted."""
    if wish not in (True, False, "auto", "lockstep", "circular"):
        raise OptionError("fused", wish, "True, False, 'auto', 'lockstep' or 'circular'")
    size = ceil((plan.budget.trials or 1) / places)
    apart = _why_apart(plan, setup)
    if wish is False:
        return SharedPasses("separate", places, why="fused=False")
    dependent = _why_not_in_lockstep(plan, timeout)
    if not isinstance(plan.model, TableEstimator):
        if not apart and is_trainer(plan.model) and wish in (True, "lockstep"):
            apart = dependent
            if not apart and size > 1:
                return SharedPasses("lockstep", places, size=size)
        return _separate(places, apart or _of_its_own(plan.model), wish)
    if apart:
        return _separate(places, apart, wish)
    try:
        common, job = _common(plan, setup)
    except BraidwaterError as error:  # it will be that of every trial
        return _separate(places, str(error), wish)
    refused: dict[Sharing, str] = {}
    refused |= {"lockstep": dependent} if dependent else {}
    refused |= {"circular": told} if (told := _why_not_circular(plan, engine, setup)) else {}
    if wish is True and len(refused) < 2:
        refused["separate"] = "fused=True"
    chosen = plan_trials(job, plan.budget.trials, places, refused=refused, wish="auto" if wish is True else wish)
    return SharedPasses(chosen.chosen.name, places, chosen, size=size, common=common)


def _separate(places: int, why: str, wish: FusedChoice) -> SharedPasses:
    if wish in ("lockstep", "circular"):
        raise UnsupportedError(f"fused={wish!r} is not possible: {why}. fused='auto' takes what is.")
    return SharedPasses("separate", places, why=why)


def _of_its_own(model: Any) -> str:
    if is_trainer(model):
        return "nets are stacked where fused=True asks for it: rounding differs"
    return f"a {type(model).__name__} makes its own passes"


def _why_apart(plan: _Plan, setup: Setup) -> str:
    if plan.folds is not None:
        return "the folds of each trial share its passes or its blocks"
    if plan.most is not None:
        return f"scheduler={plan.scheduler.name!r} trains by stretches"
    known = {*ROLES, "weight"} if is_trainer(plan.model) else {*ROLES}
    given = [name for name, value in setup.arguments.items() if name not in known and value is not None]
    return f"{given[0]}=... is for fits alone" if given else ""


def _why_not_in_lockstep(plan: _Plan, timeout: float | None) -> str:
    """Those of a bundle begin and end together: nothing may depend on one trial's result or time."""
    if not plan.independent:
        return "the sampler looks at results"
    if plan.scheduler.name != "none":
        return f"scheduler={plan.scheduler.name!r} looks at single trials"
    if plan.budget.seconds is not None or plan.budget.epochs is not None or timeout is not None:
        return "time is counted trial by trial"
    if is_trainer(plan.model) and fit_arguments(plan.model, dict.fromkeys(plan.space.names)):
        return "nets have columns of their own"
    return ""


def _why_not_circular(plan: _Plan, engine: Engine, setup: Setup) -> str:
    assert setup.rows is not None
    if not isinstance(engine, LocalEngine) or engine.stays(setup.rows):
        return "rows stay where they lie"
    if "sgd" in _values(plan, "solver"):
        return "solver='sgd' goes through the rows in their order"
    coded = [name for name in _CODED if name in plan.space.names]
    return f"{coded[0]!r} changes how rows are encoded" if coded else ""


def _values(plan: _Plan, name: str) -> list[Any]:
    """What a hyperparameter of the model may be."""
    wish = plan.space.parameters.get(name)
    return list(wish.values) if isinstance(wish, Choice) else [plan.model.get_params(deep=False).get(name)]


def _common(plan: _Plan, setup: Setup) -> tuple[Scan, Job]:
    """What the blocks of all trials hold, and the work of one of them."""
    from braidwater.model_selection.fused.estimators import Scan, opened

    rows = setup.rows
    assert rows is not None
    common: Scan | None = None
    for number, arguments in enumerate(plan.arguments_of_trials):
        roles = dict.fromkeys(ROLES) | {"exclude": ()} | arguments
        template, training = opened(variant(plan.model, {}), rows, roles, roles["features"], None)
        encoding = training.encoding
        assert encoding is not None
        common = common or Scan(encoding.label, encoding.weight, encoding.offset)
        told = common.refuses(encoding)
        if told:
            raise UnsupportedError(f"trials do not go together: {told}")
        common.add(number, template, training)
    assert common is not None
    work = template.work(rows, common.encoding)
    machine = stored_machine() or REFERENCE
    return common, Job(rows.statistics([]), work, machine, rows.reader, current_options().memory, available_memory())
