"""``braidwater ablate``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import typer

from braidwater.cli.job import Job
from braidwater.cli.models import fit_arguments, make_model
from braidwater.cli.output import print_json
from braidwater.cli.place import place_of
from braidwater.cli.search import session, validation_of
from braidwater.tables import table


def ablate(job: Job, components: Any, settings: Mapping[str, Any], *, json: bool) -> None:
    """Train with and without each component, print the effects."""
    from braidwater.model_selection import ablate as run
    from braidwater.model_selection import watch

    given = dict(settings)
    with session(job), place_of(job.engine, job.table, job.workers) as where:
        rows = table(job.table)
        model = make_model(job)
        with watch():
            found = run(
                model, rows, components=components,
                validation=validation_of(model, job, given.pop("folds", None)), seed=job.seed, **given,
                **fit_arguments(job, rows), **where,
            )  # fmt: skip
        if job.report is not None:
            found.report().write(job.report)
    if json:
        print_json({"metric": found.metric, "effects": [asdict(one) for one in found.effects]})
        return
    typer.echo(str(found))
    if job.report is not None:
        typer.echo(f"report in {job.report}")
