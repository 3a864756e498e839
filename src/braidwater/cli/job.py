"""What to train, as the options of ``train`` or a JOB.toml say it.

A job file::

    table = "flights.duckdb::flights"       # required: what braidwater.table takes
    estimator = "logistic_regression"       # or module = "package.file:Class", any torch module
    label = "late"
    features = ["distance", "carrier"]      # names, or patterns such as "x_*"; all others where left out
    exclude = ["id"]
    nulls = "mean"
    test = 0.2
    seed = 0
    memory = "1GB"
    workers = 2
    engine = "postgresql://me@host/flights" # who trains, where not this machine; or spark://HOST:PORT
    strategy = "auto"                       # or { name = "averaging", every = 8 }
    output = "late-model"
    report = "late.html"
    tensorboard = "runs/late"               # a folder for TensorBoard
    schedule = "cosine"                     # of the learning rate of a net

    [set]                                   # hyperparameters: those of the estimator, or of Trainer
    alpha = 0.1

    [arguments]                             # of the module's class, for module = "…"
    hidden = [64, 32]

    [encoders.carrier]                      # a column's encoder and its parameters
    type = "categorical"
    nulls = "category"

    [optimizer]                             # for nets: name and parameters
    name = "sgd"
    momentum = 0.9


Paths are relative to the folder that the command runs in. An option on the command line wins over the file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import typer

from braidwater.errors import UserError


@dataclass(frozen=True)
class Job:
    """A training to do. The names are those of the options and of the job file."""

    table: str
    estimator: str | None = None
    module: str | None = None
    label: str | None = None
    features: list[str] | None = None
    exclude: list[str] = field(default_factory=list)
    nulls: str | float | None = None
    test: float | None = None
    seed: int = 0
    memory: str | int | None = None
    workers: int | None = None
    engine: str | None = None
    strategy: str | dict[str, Any] = "auto"
    output: str | None = None
    report: str | None = None
    tensorboard: str | None = None
    set: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    encoders: dict[str, dict[str, Any]] = field(default_factory=dict)
    optimizer: str | dict[str, Any] | None = None
    schedule: str | None = None

    @property
    def name(self) -> str:
        return self.estimator or (self.module or "").rpartition(":")[2]


_TYPES: dict[str, tuple[type, ...]] = {
    "table": (str,), "estimator": (str,), "module": (str,), "label": (str,), "features": (list,), "exclude": (list,),
    "nulls": (str, int, float), "test": (float,), "seed": (int,), "memory": (str, int), "workers": (int,), "engine": (str,),
    "strategy": (str, dict), "output": (str,), "report": (str,), "tensorboard": (str,), "set": (dict,), "arguments": (dict,),
    "encoders": (dict,), "optimizer": (str, dict), "schedule": (str,),
}  # fmt: skip
_WORDS = {
    str: "a text", int: "a whole number", float: "a number", bool: "true or false", list: "a list", dict: "a table",
}  # fmt: skip


def job_of(estimator: str, table: str | None, command: str, **given: Any) -> Job:
    """The job that the arguments of a command describe, or the file that they name."""
    options = parsed(given)
    if table is None and estimator.endswith(".toml"):
        return read_job(estimator, command, options)
    if table is None:
        raise typer.BadParameter("TABLE is missing: give an estimator and a table, or a JOB.toml.")
    job = Job(estimator=estimator, table=table, **options)
    if command == "train" and job.output is None:
        raise typer.BadParameter("--output is missing: the folder to save the model in.")
    return job


def parsed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the command line as a job file has them: lists and tables."""
    options = dict(given)
    for name in ("features", "exclude"):
        if name in options:
            options[name] = [part.strip() for part in options[name].split(",") if part.strip()]
    if "strategy" in options:
        options["strategy"] = parse_strategy(options["strategy"])
    if "set" in options:
        options["set"] = dict(parse_setting(text) for text in options["set"])
    return options


def read_job(path: str, command: str, over: dict[str, Any]) -> Job:
    """The job in a TOML file, with the options `over` it. Unknown keys and wrong types are refused."""
    return job_from(read_document(path), path, command, over)


def read_document(path: str) -> dict[str, Any]:
    """What a TOML file says."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"There is no job file at {path!r}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path!r} is no TOML: {error}.") from error


def job_from(
    document: dict[str, Any], path: str, command: str, over: dict[str, Any], others: Iterable[str] = ()
) -> Job:
    """The job that a document describes; `others` are keys that were taken out of it, for a hint where one is misspelt."""
    known = [one.name for one in fields(Job)]
    for name, value in document.items():
        if name not in known:
            raise UserError(f"{path!r} has the unknown key {name!r}. {did_you_mean(name, [*known, *others])}")
        check_type(path, name, value, _TYPES[name])
    merged = document | {name: value for name, value in over.items() if name != "set"}
    if "set" in over:
        merged["set"] = {**document.get("set", {}), **over["set"]}
    if "table" not in merged:
        raise UserError(f'{path!r} names no table; add a line such as table = "flights.parquet".')
    if ("estimator" in merged) == ("module" in merged):
        raise UserError(f'{path!r} needs either estimator = "…" or module = "package.file:Class".')
    if command == "train" and "output" not in merged:
        raise UserError(f'{path!r} names no folder for the model; add a line such as output = "model".')
    return Job(**merged)


def own_keys(path: str, document: dict[str, Any], keys: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """Take the `keys` of a command out of a document, their types checked."""
    own = {name: document.pop(name) for name in keys if name in document}
    for name, value in own.items():
        check_type(path, name, value, keys[name])
    return own


def check_type(path: str, name: str, value: Any, types: tuple[type, ...]) -> None:
    """Refuse a value of another type; a whole number is a number, a truth value is neither."""
    allowed = (*types, int) if float in types else types
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in types):
        expected = " or ".join(_WORDS[kind] for kind in types)
        raise UserError(f"{path!r}: {name} = {value!r} is not possible; it must be {expected}.")


def parse_setting(text: str) -> tuple[str, Any]:
    """``NAME=VALUE`` with the value as TOML; a bare word is a text.

    >>> parse_setting("alpha=0.1"), parse_setting("hidden=[64, 32]"), parse_setting("solver=newton")
    (('alpha', 0.1), ('hidden', [64, 32]), ('solver', 'newton'))
    """
    name, separator, value = text.partition("=")
    name = name.strip()
    if not separator or not name.isidentifier():
        raise typer.BadParameter(f"{text!r} is not of the form NAME=VALUE.", param_hint="--set")
    try:
        return name, tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value.strip()


def parse_strategy(text: str) -> str | dict[str, Any]:
    """A name, or ``NAME(PARAMETER=VALUE, ...)`` with values as TOML.

    >>> parse_strategy("all_reduce"), parse_strategy("averaging(every=8, optimizer_state='reset')")
    ('all_reduce', {'name': 'averaging', 'every': 8, 'optimizer_state': 'reset'})
    """
    name, bracket, rest = text.strip().partition("(")
    if not bracket:
        return name
    try:
        parameters = tomllib.loads(f"value = {{{rest.removesuffix(')')}}}")["value"]
    except tomllib.TOMLDecodeError as error:
        wish = "NAME or NAME(PARAMETER=VALUE, ...), such as averaging(every=8)"
        raise typer.BadParameter(f"{text!r} is not of the form {wish}: {error}.", param_hint="--strategy") from error
    return {"name": name.strip(), **parameters}


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name."""
    names = list(known)
    near = get_close_matches(name, names, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(names)}."


def check_names(what: str, given: Iterable[Any], known: Iterable[str]) -> None:
    """Raise for the first of the names in `given` that is not known. `what` ends the sentence "there is no …"."""
    names = list(known)
    for name in given:
        if name not in names:
            raise UserError(f"There is no {what} {name!r}. {did_you_mean(str(name), names)}")
