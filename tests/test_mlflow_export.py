"""A study as runs of an MLflow server: here of one that keeps the server's rules."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pytest

from braidwater.errors import OptionError, StudyError
from braidwater.model_selection import Float, LogFloat, search
from braidwater.model_selection.base import Trial
from braidwater.model_selection.mlflow_export import export_study
from braidwater.model_selection.study import Study
from search_models import Parabola

ROWS = pa.table({"x": [0.0, 1.0], "y": [0, 1]})


class Server:
    """What the manual of MLflow's REST interface says, as far as a study needs it."""

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.headers: set[str | None] = set()
        self.requests = 0

    def answer(self, what: str, query: dict[str, list[str]], wish: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.requests += 1
        if what == "experiments/get-by-name":
            name = query["experiment_name"][0]
            if name not in self.experiments:
                return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"No experiment {name}"}
            return 200, {"experiment": {"experiment_id": self.experiments[name]}}
        if what == "experiments/create":
            self.experiments[wish["name"]] = str(len(self.experiments))
            return 200, {"experiment_id": self.experiments[wish["name"]]}
        if what == "runs/create":
            run = {
                "info": {"run_id": f"r{len(self.runs)}"},
                "wish": wish,
                "params": {},
                "metrics": [],
                "status": "RUNNING",
            }
            run["tags"] = {tag["key"]: tag["value"] for tag in wish["tags"]}
            self.runs[run["info"]["run_id"]] = run
            return 200, {"run": {"info": run["info"]}}
        if what == "runs/search":
            (key, value), *_ = re.findall(r"tags\.`([^`]*)` = '([^']*)'", wish["filter"])
            found = [run for run in self.runs.values() if run["tags"].get(key) == value]
            begin = int(wish.get("page_token", 0))
            page = {"runs": [{"info": run["info"], "data": {"tags": [
                {"key": k, "value": v} for k, v in run["tags"].items()]}} for run in found[begin : begin + 3]]}  # fmt: skip
            return 200, page | ({"next_page_token": str(begin + 3)} if len(found) > begin + 3 else {})
        run = self.runs[wish["run_id"]]
        if what == "runs/update":
            run |= {"status": wish["status"], "end_time": wish.get("end_time")}
            return 200, {}
        assert what == "runs/log-batch"
        metrics, params = wish.get("metrics", []), wish.get("params", [])
        if len(metrics) > 1000 or len(params) > 100 or not all(re.fullmatch(r"[\w\-. :/]+", m["key"]) for m in metrics):
            return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "too many, or a name that is none"}
        for one in params:
            if run["params"].setdefault(one["key"], one["value"]) != one["value"]:
                return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "Changing param values is not allowed"}
        run["metrics"] += metrics
        run["tags"] |= {tag["key"]: tag["value"] for tag in wish.get("tags", [])}
        return 200, {}


@pytest.fixture
def server() -> Iterator[tuple[Server, str]]:
    kept = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kept.headers.add(self.headers.get("Authorization"))
            parts = urlsplit(self.path)
            status, document = kept.answer(
                parts.path.removeprefix("/api/2.0/mlflow/"), parse_qs(parts.query), json.loads(body or b"{}")
            )
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        do_GET = do_POST  # noqa: N815 - the name that http.server calls

        def log_message(self, *_: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    yield kept, f"127.0.0.1:{listening.server_address[1]}"
    listening.shutdown()
    listening.server_close()
    thread.join()


def test_a_study_is_a_run_with_a_run_a_trial_and_exported_again_it_is_brought_up_to_date(server, tmp_path) -> None:
    kept, host = server
    given = {
        "label": "y",
        "metric": "loss",
        "workers": 1,
        "validation": None,
        "scheduler": "median",
        "name": "parabola",
    }
    given |= {"storage": tmp_path / "s.sqlite"}
    space = {"x": Float(-1, 1), "rate": LogFloat(1e-3, 1)}
    study = search(Parabola(), space, ROWS, budget=8, **given)
    run = study.to_mlflow(f"http://anna:se%20cret@{host}/")
    assert kept.headers == {"Basic YW5uYTpzZSBjcmV0"}
    assert kept.experiments == {"parabola": "0"}
    trials = {one["tags"]["braidwater.trial"]: one for one in kept.runs.values() if one["info"]["run_id"] != run}
    assert len(trials) == 8
    for trial in study.trials:
        one = trials[str(trial.number)]
        assert one["tags"]["mlflow.parentRunId"] == run
        assert {name: json.loads(value) for name, value in one["params"].items()} == trial.parameters
        assert {
            m["step"]: m["value"] for m in one["metrics"] if m["key"] == "loss by epoch"
        }.items() >= trial.reports.items()
        assert one["status"] == {"complete": "FINISHED", "pruned": "KILLED"}[trial.state]
        if trial.state == "complete":
            assert [m["value"] for m in one["metrics"] if m["key"] == "loss"] == [trial.value]
    assert {one["status"] for one in trials.values()} == {"FINISHED", "KILLED"}
    assert kept.runs[run]["status"] == "FINISHED"
    longer = search(Parabola(), space, ROWS, budget=10, **given)
    assert longer.to_mlflow(f"http://{host}") == run
    assert len(kept.runs) == 11


def test_more_than_a_request_holds_is_sent_in_several_and_odd_names_are_told_otherwise(server) -> None:
    kept, host = server
    trial = Trial(0, {f"p{k}": k for k in range(250)}, state="failed", error="it broke", started=1.0, seconds=2.0)
    trial.metrics = {"auc": float("nan"), "loss (fold 1)": 0.5}
    trial.reports = dict.fromkeys(range(1, 2501), 0.25)
    study = Study("many", ["loss"], ["minimize"], {0: trial}, {}, None)  # type: ignore[arg-type]
    export_study(study, f"http://{host}", experiment="mine")
    found = next(run for run in kept.runs.values() if run["tags"]["braidwater.trial"] == "0")
    assert (len(found["params"]), len(found["metrics"])) == (250, 2502)
    assert [(one["key"], one["value"]) for one in found["metrics"][-2:]] == [("auc", "NaN"), ("loss/fold 1", 0.5)]
    assert (found["status"], found["tags"]["braidwater.error"], found["end_time"]) == ("FAILED", "it broke", 3000)


def test_a_server_that_is_not_there_or_refuses_is_told_without_the_password(server, monkeypatch) -> None:
    kept, host = server
    study = Study("one", ["loss"], ["minimize"], {0: Trial(0, {"a": 1})}, {}, None)  # type: ignore[arg-type]
    study.to_mlflow(f"http://{host}")
    study.trials[0].parameters["a"] = 2
    with pytest.raises(StudyError, match=r"refused runs/log-batch: 400, .*Changing param values"):
        study.to_mlflow(f"http://{host}")
    with pytest.raises(StudyError, match="There is no MLflow server at http://localhost:1") as told:
        study.to_mlflow("http://anna:secret@localhost:1")
    assert "secret" not in str(told.value)
    with pytest.raises(OptionError, match="that of an MLflow server") as told_option:
        study.to_mlflow("sqlite://anna:secret@mlflow.db")
    assert "secret" not in str(told_option.value)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abc")
    kept.headers.clear()
    with pytest.raises(StudyError):
        study.to_mlflow(f"http://{host}")
    assert kept.headers == {"Bearer abc"}
