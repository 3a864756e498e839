"""The thin layer between commands and models: making one from a job, fitting it, reading off what it learnt."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from braidwater.cli.job import Job, check_names
from braidwater.errors import UnsupportedError, UserError
from braidwater.report.models import estimator, find
from braidwater.tables import Table

_NETS = ("mlp", "cnn")
_SEEDS = ("seed", "random_state")  # how estimators call what --seed sets


def make_model(job: Job) -> Any:
    """The untrained model that the job describes. Unknown hyperparameters are refused with the nearest name."""
    factory: Callable[..., Any]
    settings = dict(job.set)
    if job.module is not None:
        sys.path.insert(0, os.getcwd())  # the user's own modules lie where the command runs
        factory = find("braidwater.deep:Trainer")
        find(job.module)
        settings |= {"module": job.module, "module_arguments": job.arguments}
    else:
        factory = estimator(str(job.estimator))
        if job.arguments:
            raise UserError(
                "[arguments] are those of a module's class; hyperparameters of an estimator go under [set]."
            )
    known = parameters_of(factory)
    if job.module is not None or job.estimator in _NETS:
        _net_settings(job, settings)
    elif job.strategy not in ("auto", "data"):
        raise UnsupportedError(
            f"{job.name} spreads rows over threads (strategy='data') and needs no other; strategy={job.strategy!r} is for nets."
        )
    if job.nulls is not None:
        settings["nulls"] = job.nulls
    for name in _SEEDS:
        if name in known:
            settings.setdefault(name, job.seed)
    check_names(f"hyperparameter of {job.name}", settings, known)
    return factory(**settings)


def _net_settings(job: Job, settings: dict[str, Any]) -> None:
    """Strategy, optimizer and schedule, each a name or a table with a name and its parameters."""
    if job.strategy != "auto":
        settings["strategy"] = strategy_of(job.strategy, job.workers)
    elif job.workers is not None:
        settings["workers"] = job.workers
    if job.optimizer is not None:
        settings["optimizer"], settings["optimizer_arguments"] = _named("optimizer", job.optimizer)
    if job.schedule is not None:
        settings["schedule"] = job.schedule


def strategy_of(wish: str | Mapping[str, Any], workers: int | None) -> Any:
    """A strategy from its name, or from a table with its name and parameters."""
    from braidwater.parallel import strategy_class

    name, rest = _named("strategy", wish)
    kind = strategy_class(name)
    if workers is not None:
        rest.setdefault("workers", workers)
    check_names(f"parameter of the strategy {name}", rest, parameters_of(kind))
    return kind(**rest)


def _named(what: str, wish: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if isinstance(wish, str):
        return wish, {}
    rest = dict(wish)
    if not isinstance(rest.get("name"), str):
        raise UserError(f'[{what}] needs a name, such as name = "…".')
    return rest.pop("name"), rest


def parameters_of(factory: Callable[..., Any]) -> list[str]:
    """The parameters that a class or function takes by name; those of `Trainer` too where it hands the rest on."""
    parameters = inspect.signature(factory).parameters.values()
    names = [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        trainer = inspect.signature(find("braidwater.deep:Trainer")).parameters
        names += [name for name in trainer if name not in (*names, "module", "module_arguments", "kind")]
    return names


def fit_arguments(job: Job, rows: Table) -> dict[str, Any]:
    """What `fit` and `explain` are called with beside the table."""
    arguments: dict[str, Any] = {"features": features_of(job, rows), "exclude": job.exclude}
    if job.label is not None:
        arguments["label"] = job.label
    return arguments


def features_of(job: Job, rows: Table) -> Any:
    """The job's features; a mapping to encoders where it declares any."""
    if not job.encoders:
        return job.features
    import braidwater.encoding as encoding

    kinds = {
        "numeric": encoding.Numeric,
        "boolean": encoding.Boolean,
        "categorical": encoding.Categorical,
        "hashed": encoding.Hashed,
        "vector": encoding.Vector,
        "image": encoding.Image,
        "sequence": encoding.Sequence,
    }
    declared = {}
    for column, wish in job.encoders.items():
        rest = dict(wish)
        kind = rest.pop("type", None)
        check_names(f"encoder (of column {column!r}) of type", [kind], kinds)
        check_names(f"parameter of the {kind} encoder (of column {column!r})", rest, parameters_of(kinds[kind]))
        lists = {name: tuple(value) if isinstance(value, list) else value for name, value in rest.items()}
        declared[column] = kinds[kind](**lists)
    rows.require(list(declared))
    others: list[Any] = (
        [name for name in rows.column_names if name not in declared] if job.features is None else job.features
    )
    wanted = [name for name in others if name not in (job.label, *job.exclude) and name not in declared]
    if not wanted:
        return declared
    nulls = "refuse" if job.nulls is None else job.nulls
    by_type = encoding.Encoding(features=wanted, nulls=nulls).encoders(rows)
    return {**by_type, **declared}


def coefficients(model: Any) -> tuple[dict[str, float], dict[str, float]]:
    """Coefficients and standard errors by encoded column or ``intercept``; empty for models that have none."""
    table = getattr(model, "coefficients_", None)
    if table is None:
        return {}, {}
    columns = table.to_dict()
    return columns["coefficient"], columns["standard_error"]


def scalars(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of an evaluation: its single figures, but for the count of rows and bounds on another figure's error."""
    return {
        name: value
        for name, value in evaluation.items()
        if isinstance(value, (int, float)) and name != "rows" and not name.endswith("_error")
    }


def own_figures(model: Any) -> dict[str, float]:
    """What a model without a label knows of its fit."""
    found: dict[str, float] = {}
    for attribute, name in (("inertia_", "inertia"), ("explained_variance_ratio_", "explained_variance_ratio")):
        value = getattr(model, attribute, None)
        if value is not None:
            found[name] = float(value.sum()) if hasattr(value, "sum") else float(value)
    return found
