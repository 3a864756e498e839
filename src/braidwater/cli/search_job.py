"""What to search, as the options of ``search`` or a JOB.toml say it.

A job file is one of ``train`` (see `braidwater.cli.job`) with a space, and what else ``search`` takes::

    table = "flights.parquet"
    estimator = "mlp"
    label = "late"
    metric = "accuracy"
    scheduler = "asha"                      # or folds = 5: trials are compared by cross validation
    sampler = "tpe"
    trials = 100                            # or seconds, or epochs over all trials
    storage = "studies.sqlite"              # or postgresql://USER@HOST/DATABASE
    name = "late"

    [set]                                   # what all trials have in common
    epochs = 27

    [space]                                 # required: what is tried
    learning_rate = "1e-4..1e-1:log"        # as --param writes it
    hidden = [[32], [64, 32]]               # a choice
    batch_size = { low = 32, high = 512, log = true }
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from braidwater.cli.job import Job, job_from, job_of, own_keys, parsed, read_document
from braidwater.cli.search import parse_parameter
from braidwater.errors import UserError

SEARCH_KEYS: dict[str, tuple[type, ...]] = {
    "metric": (str,), "direction": (str,), "trials": (int,), "seconds": (float,), "epochs": (int,), "sampler": (str,),
    "scheduler": (str,), "folds": (int,), "hopper": (bool,), "partitions": (int,), "storage": (str,), "name": (str,),
    "resume": (bool,), "keep": (int,), "trial_timeout": (float,), "space": (dict,),
}  # fmt: skip


def search_job(
    estimator: str, table: str | None, params: Sequence[str], given: Mapping[str, Any]
) -> tuple[Job, dict[str, Any], dict[str, Any]]:
    """The job, the space and the settings of a search. Options of the command line win over a file."""
    settings = {name: value for name, value in given.items() if name in SEARCH_KEYS}
    rest = {name: value for name, value in given.items() if name not in SEARCH_KEYS}
    space = dict(parse_parameter(text) for text in params)
    if table is not None or not estimator.endswith(".toml"):
        job = job_of(estimator, table, "search", **rest)
    else:
        document = read_document(estimator)
        own = own_keys(estimator, document, SEARCH_KEYS)
        job = job_from(document, estimator, "search", parsed(rest), SEARCH_KEYS)
        space = {name: _range(estimator, name, value) for name, value in own.pop("space", {}).items()} | space
        settings = own | settings
    if not space:
        raise typer.BadParameter("Nothing is tried: give --param NAME=RANGE, or a table [space] in JOB.toml.")
    return job, space, settings


def _range(path: str, name: str, wish: Any) -> Any:
    """A range as a file writes it: a text as of --param, a list of choices, or a table with low and high."""
    from braidwater.model_selection.space import Choice, Float, Int, as_parameter

    if isinstance(wish, str):
        return parse_parameter(f"{name}={wish}")[1]
    if isinstance(wish, list):
        return as_parameter(name, Choice(wish))
    if not isinstance(wish, dict) or not {"low", "high"} <= set(wish) <= {"low", "high", "log", "step"}:
        raise UserError(
            f'{path!r}: space.{name} = {wish!r} is no range; write "1e-4..1e-1:log", a list, or {{ low = 1, high = 9 }}.'
        )
    numbers = [wish[key] for key in ("low", "high", "step") if key in wish]
    kind: Any = Int if all(isinstance(one, int) for one in numbers) else Float
    return as_parameter(name, kind(**wish))
