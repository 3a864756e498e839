"""What to leave out, as the options of ``ablate`` or a JOB.toml say it.

A job file is one of ``train`` (see `braidwater.cli.job`) with components, and what else ``ablate`` takes::

    table = "flights.parquet"
    estimator = "mlp"
    label = "late"
    metric = "accuracy"
    repeats = 5
    storage = "studies.sqlite"
    name = "what-counts"

    [set]
    dropout = 0.1

    [components]                            # or components = "layers", or a list such as ["distance", ["lat", "lon"]]
    weather = "weather_*"                   # all columns that fit
    place = ["origin", "destination"]       # columns that go together
    "second layer" = { layers = "layers.3" }
    dropout = { set = { dropout = 0.0 } }   # hyperparameters that take other values
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from braidwater.cli.job import Job, job_from, job_of, own_keys, parsed, read_document
from braidwater.errors import UserError

ABLATE_KEYS: dict[str, tuple[type, ...]] = {
    "metric": (str,), "direction": (str,), "repeats": (int,), "folds": (int,), "storage": (str,), "name": (str,),
    "resume": (bool,), "trial_timeout": (float,), "components": (str, list, dict),
}  # fmt: skip


def ablate_job(
    estimator: str, table: str | None, columns: Sequence[str], layers: Sequence[str], given: Mapping[str, Any]
) -> tuple[Job, Any, dict[str, Any]]:
    """The job, the components and the settings of an ablation. Options of the command line win over a file."""
    settings = {name: value for name, value in given.items() if name in ABLATE_KEYS}
    rest = {name: value for name, value in given.items() if name not in ABLATE_KEYS}
    if table is not None or not estimator.endswith(".toml"):
        return job_of(estimator, table, "ablate", **rest), _named(columns, layers), settings
    document = read_document(estimator)
    own = own_keys(estimator, document, ABLATE_KEYS)
    job = job_from(document, estimator, "ablate", parsed(rest), ABLATE_KEYS)
    wish = _of_file(estimator, own.pop("components", None))
    return job, _named(columns, layers) or wish, own | settings


def _named(columns: Sequence[str], layers: Sequence[str]) -> Any:
    """``a``, ``NAME=a,b`` and patterns; None for every feature, ``"layers"`` for every layer."""
    from braidwater.model_selection import Columns, Layers

    if not columns and list(layers) == ["all"]:
        return "layers"
    found: dict[str, Any] = {}
    for kind, texts in ((Columns, columns), (Layers, layers)):
        for text in texts:
            name, separator, parts = text.partition("=")
            component = kind(*(part.strip() for part in (parts if separator else name).split(",")))
            if (name if separator else component.name) in found:
                raise typer.BadParameter(f"{text!r} has the name of another component; write NAME={text}.")
            found[name if separator else component.name] = component
    return found or None


def _of_file(path: str, wish: Any) -> Any:
    if isinstance(wish, dict):
        return {name: _component(path, name, one) for name, one in wish.items()}
    return wish


def _component(path: str, name: str, wish: Any) -> Any:
    """Columns as a text or a list of texts; ``{ layers = … }``, ``{ set = { … } }``."""
    from braidwater.model_selection import Layers, Setting

    match wish:
        case str() | [str(), *_] if isinstance(wish, str) or all(isinstance(one, str) for one in wish):
            return wish
        case {"layers": str() as pattern, **rest} if not rest:
            return Layers(pattern)
        case {"layers": [str(), *_] as patterns, **rest} if not rest and all(isinstance(one, str) for one in patterns):
            return Layers(*patterns)
        case {"set": dict() as values, **rest} if values and not rest:
            return Setting(values)
    raise UserError(
        f'{path!r}: components.{name} = {wish!r} is no component; write columns ("distance", ["lat", "lon"]), '
        '{ layers = "layers.3" } or { set = { dropout = 0.0 } }.'
    )
