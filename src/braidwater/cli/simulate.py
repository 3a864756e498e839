"""``braidwater simulate``: what training would cost on a cluster that is not here."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from braidwater.cli.output import print_json
from braidwater.errors import OptionError
from braidwater.options import parse_bytes
from braidwater.planner.cluster import Cluster
from braidwater.planner.simulate import Model, Simulation, simulate
from braidwater.report import Report
from braidwater.report.charts import Series, line_chart

_TIMES = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}


def run(given: dict[str, Any], *, json: bool, report: str | None) -> None:
    """Simulate, print, and write the report."""
    found = simulate(
        _model(given),
        _cluster(given),
        batch=given["batch"] if given.get("batch_per_worker") is None else given["batch_per_worker"],
        scaling="strong" if given.get("batch_per_worker") is None else "weak",
        strategies=_names(given["strategy"]),
        workers=_numbers(given["workers"]),
        options=options_of(given.get("set") or []),
        memory=None if given.get("memory") is None else parse_bytes(given["memory"], "memory"),
    )
    saved = None if report is None else write_report(found, report)
    if json:
        print_json(found.to_json() | ({} if saved is None else {"report": str(saved)}))
        return
    typer.echo(str(found))
    if saved is not None:
        typer.echo(f"report in {saved}")


def _model(given: dict[str, Any]) -> Model:
    if given.get("model") is not None:
        from braidwater.deep.simulating import model_of

        sys.path.insert(0, os.getcwd())  # the user's own modules lie where the command runs
        return model_of(given["model"], _shape(given.get("inputs")), given["outputs"])
    for name in ("parameters", "flops_per_row"):
        if given.get(name) is None:
            raise OptionError(name, None, "given, or --model with the import path of a module")
    return Model(
        "a net",
        weights=int(given["bytes_per_parameter"] * given["parameters"]),
        flops_per_row=given["flops_per_row"],
        activations=0 if given.get("activations") is None else parse_bytes(given["activations"], "activations"),
        depth=given["depth"],
    )


def _cluster(given: dict[str, Any]) -> Cluster:
    return Cluster(
        bandwidth=rate("bandwidth", given["bandwidth"]),
        latency=seconds("latency", given["latency"]),
        flops=given["flops"],
        topology=given["topology"],
        node_workers=given["node_workers"],
        node_bandwidth=rate("node_bandwidth", given["node_bandwidth"]),
        node_latency=seconds("node_latency", given["node_latency"]),
        overlap=given["overlap"],
        jitter=given["jitter"],
    )


def rate(name: str, text: str) -> float:
    """Bytes a second from ``10GB/s``, ``25Gbit/s``.

    >>> rate("bandwidth", "10GB/s"), rate("bandwidth", "25Gbit/s")
    (10000000000.0, 3125000000.0)
    """
    plain = text.removesuffix("/s").strip()
    if plain.lower().endswith("bit"):
        return parse_bytes(plain[:-3] + "B", name) / 8
    return float(parse_bytes(plain, name))


def seconds(name: str, text: str) -> float:
    """Seconds from ``20us``, ``1.5 ms``.

    >>> seconds("latency", "1.5 ms")
    0.0015
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:e-?\d+)?)\s*(ns|us|ms|s)\s*", text)
    if match is None:
        raise OptionError(name, text, "a duration such as 20us or 1.5ms")
    return float(match[1]) * _TIMES[match[2]]


def options_of(settings: Sequence[str]) -> dict[str, Any]:
    """Options of strategies from ``name=value``, the value as TOML or as plain text."""
    found = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise OptionError("set", setting, "name=value, such as micro_batches=32")
        try:
            found[name.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            found[name.strip()] = text.strip()
    return found


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str) -> list[int]:
    """Numbers of workers; ``1,2,4,...,1024`` goes on by the factor of the last two.

    >>> _numbers("1,2,...,16"), _numbers("8,256")
    ([1, 2, 4, 8, 16], [8, 256])
    """
    parts = _names(text)
    try:
        if "..." not in parts:
            return [int(part) for part in parts]
        place = parts.index("...")
        found, last = [int(part) for part in parts[:place]], int(parts[place + 1])
        factor = found[-1] // found[-2]
        while factor > 1 and found[-1] * factor <= last:
            found.append(found[-1] * factor)
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise OptionError("workers", text, "numbers such as 1,8,64 or 1,2,4,...,1024") from error
    return found


def _shape(text: str | None) -> int | tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in (text or "").lower().split("x"))
    except ValueError as error:
        raise OptionError("inputs", text, "the width of the inputs, or a shape such as 3x224x224") from error
    return sizes[0] if len(sizes) == 1 else sizes


def write_report(found: Simulation, path: str) -> Path:
    """The scaling curves as an HTML page."""
    report = Report(f"{found.model.name} on a cluster", f"{found.scaling} scaling; simulated, not measured")
    report.section("Scaling")
    for attribute, title, label in (
        ("efficiency", "Efficiency", "speed-up over one worker / workers"),
        ("rows_per_second", "Speed", "rows a second"),
        ("seconds", "Step time", "seconds"),
        ("worker_bytes", "Memory of a worker", "GB"),
    ):
        report.figure(_chart(found, attribute, title, label), title)
    report.section("Figures")
    report.text(str(found))
    return report.write(path)


def _chart(found: Simulation, attribute: str, title: str, label: str) -> str:
    scale = 1e-9 if attribute == "worker_bytes" else 1.0
    series = [
        Series(name, [point.workers for point in points], [scale * getattr(point, attribute) for point in points])
        for name in found.strategies
        if (points := found.of(name))
    ]
    values = [value for one in series for value in one.y]
    wide = bool(values) and max(values) > 10 * min(values) > 0
    return line_chart(title, series, x_label="workers", y_label=label, log_x=True, log_y=wide)
