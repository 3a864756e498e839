"""A study as runs of an MLflow server: one for the study, and below it one for each trial. Nothing of MLflow is imported.

The server's REST interface (mlflow.org/docs/latest/rest-api.html) takes at most 1000 figures and 100 parameters in a request.
"""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlencode, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from braidwater.errors import OptionError, StudyError
from braidwater.model_selection.base import State, Trial

if TYPE_CHECKING:
    from braidwater.model_selection.study import Study

SECONDS = 30.0  # to wait for an answer
MOST_METRICS, MOST_PARAMETERS = 1000, 100
_STUDY, _TRIAL = "braidwater.study", "braidwater.trial"
_STATUS: dict[State, str] = {
    "running": "RUNNING", "paused": "SCHEDULED", "complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED",
}  # fmt: skip


def export_study(study: Study, address: str, experiment: str | None = None) -> str:
    """Write `study` to the MLflow server at `address`, and return the id of its run.

    `experiment` is the name of the experiment, by default that of the study; it is made where it is missing. Trials that are
    there already are brought up to date. A user and a password may stand in the address, or a token in the variable
    MLFLOW_TRACKING_TOKEN. Costs one or two requests a trial.
    """
    server = _Server(address)
    experiment_id = server.experiment(experiment or study.name)
    known = server.runs(experiment_id, study.name)
    started = min((trial.started for trial in study.trials), default=0.0)
    parent = known.get("") or server.begin(experiment_id, study.name, started, {_STUDY: study.name, _TRIAL: ""})
    for trial in study.trials:
        number = str(trial.number)
        tags = {_STUDY: study.name, _TRIAL: number, "mlflow.parentRunId": parent}
        run = known.get(number) or server.begin(experiment_id, f"trial {number}", trial.started, tags)
        server.log(run, trial, study.metrics)
    ended = [trial.started + trial.seconds for trial in study.trials if trial.state != "running"]
    status = "RUNNING" if any(trial.state == "running" for trial in study.trials) else "FINISHED"
    server.end(parent, status, max(ended, default=started))
    return parent


class _Server:
    """Requests to an MLflow server."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise OptionError("address", _without_password(address), "that of an MLflow server: http://HOST:5000")
        host = parts.hostname if parts.port is None else f"{parts.hostname}:{parts.port}"
        self._address = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        self._headers = {"Content-Type": "application/json"}
        token = os.environ.get("MLFLOW_TRACKING_TOKEN")
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        elif token:
            self._headers["Authorization"] = f"Bearer {token}"

    def experiment(self, name: str) -> str:
        """The id of the experiment of this name."""
        try:
            found = self._ask(f"experiments/get-by-name?{urlencode({'experiment_name': name})}")
            return str(found["experiment"]["experiment_id"])
        except _NotThereError:
            return str(self._ask("experiments/create", {"name": name})["experiment_id"])

    def runs(self, experiment_id: str, study: str) -> dict[str, str]:
        """The ids of the runs of a study, by the number of their trial (empty for the study's own)."""
        found: dict[str, str] = {}
        wish: dict[str, Any] = {"experiment_ids": [experiment_id], "max_results": 1000}
        wish["filter"] = f"tags.`{_STUDY}` = '{study}'" if "'" not in study else ""
        while True:
            page = self._ask("runs/search", wish)
            for run in page.get("runs", ()):
                tags = {tag["key"]: tag["value"] for tag in run["data"].get("tags", ())}
                if tags.get(_STUDY) == study:
                    found[tags.get(_TRIAL, "")] = str(run["info"]["run_id"])
            if not page.get("next_page_token"):
                return found
            wish["page_token"] = page["next_page_token"]

    def begin(self, experiment_id: str, name: str, started: float, tags: Mapping[str, str]) -> str:
        """A new run; its id."""
        wish = {"experiment_id": experiment_id, "run_name": name, "start_time": int(1000 * started)}
        made = self._ask("runs/create", {**wish, "tags": [{"key": key, "value": tags[key]} for key in tags]})
        return str(made["run"]["info"]["run_id"])

    def log(self, run: str, trial: Trial, names: Sequence[str]) -> None:
        """Everything that is known of a trial."""
        metrics = list(_metrics(trial, names))
        parameters = [{"key": name, "value": _text(value)} for name, value in trial.parameters.items()]
        tags = [{"key": "braidwater.state", "value": trial.state}]
        tags += [] if trial.error is None else [{"key": "braidwater.error", "value": trial.error[:5000]}]
        for begin in range(0, max(len(parameters), 1), MOST_PARAMETERS):
            self._ask(
                "runs/log-batch", {"run_id": run, "params": parameters[begin : begin + MOST_PARAMETERS], "tags": tags}
            )
        for begin in range(0, len(metrics), MOST_METRICS):
            self._ask("runs/log-batch", {"run_id": run, "metrics": metrics[begin : begin + MOST_METRICS]})
        self.end(run, _STATUS[trial.state], trial.started + trial.seconds)

    def end(self, run: str, status: str, at: float) -> None:
        """Set the status of a run, and when it ended."""
        over = {} if status in ("RUNNING", "SCHEDULED") else {"end_time": int(1000 * at)}
        self._ask("runs/update", {"run_id": run, "status": status, **over})

    def _ask(self, what: str, document: Mapping[str, Any] | None = None) -> Any:
        body = None if document is None else json.dumps(document).encode()
        request = Request(f"{self._address}/api/2.0/mlflow/{what}", body, self._headers)
        try:
            with urlopen(request, timeout=SECONDS) as answer:
                return json.loads(answer.read() or b"{}")
        except HTTPError as error:
            told = error.read().decode(errors="replace")[:500]
            if error.code == 404 and "RESOURCE_DOES_NOT_EXIST" in told:
                raise _NotThereError(told) from None
            raise StudyError(
                f"The MLflow server {self._address} refused {what.partition('?')[0]}: {error.code}, {told}"
            ) from None
        except (URLError, TimeoutError, json.JSONDecodeError, OSError) as error:
            raise StudyError(
                f"There is no MLflow server at {self._address}: {getattr(error, 'reason', error)}."
            ) from None


class _NotThereError(Exception):
    """The server has no such experiment."""


def _metrics(trial: Trial, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Values at the end, figures of the model, and the curve of the first metric by epochs."""
    ended = int(1000 * (trial.started + trial.seconds))
    finals = dict(trial.metrics) | dict(zip(names, trial.values or (), strict=False))
    curve = {**trial.reports, **trial.results}
    for epoch, value in sorted(curve.items()):
        yield {"key": _key(f"{names[0]} by epoch"), "value": _number(value), "timestamp": ended, "step": epoch}
    for name, value in finals.items():
        yield {"key": _key(name), "value": _number(value), "timestamp": ended, "step": trial.epochs}


def _number(value: float) -> float | str:
    """JSON has no word for what is no number; protobuf, which the server speaks, takes these."""
    return value if math.isfinite(value) else "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _key(name: str) -> str:
    """MLflow allows letters, digits, and ``_ - . / space :``; figures of folds go into a folder.

    >>> _key("loss (fold 1)"), _key("a@b")
    ('loss/fold 1', 'a_b')
    """
    name = name.replace(" (", "/").removesuffix(")")
    return "".join(letter if letter.isalnum() or letter in "_-. :/" else "_" for letter in name)


def _text(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value, default=str))[:6000]


def _without_password(address: str) -> str:
    before, at, rest = address.rpartition("@")
    return f"{before.partition('://')[0]}://…@{rest}" if at else address
