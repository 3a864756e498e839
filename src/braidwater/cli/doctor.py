"""``braidwater doctor``: is everything there, how fast is this machine, and what is missing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any
from uuid import uuid4

import typer

from braidwater.cli.finding import Finding, tried
from braidwater.cli.output import print_json
from braidwater.extras import EXTRAS, how_to_install
from braidwater.options import current_options, format_bytes

_MARKS = {"good": "ok", "missing": "--", "bad": "!!"}
_OPTIONAL = {name: use for name, (_, use) in EXTRAS.items() if name != "pyspark"} | {
    "pandas": "pandas frames",
    "polars": "polars frames",
}  # Spark has findings of its own


def doctor(*, json: bool, spark: str | None = None) -> None:
    """Print the findings; exit with 1 when one of them is bad. `spark` is a master whose workers are looked at too."""
    from braidwater.cli.doctor_spark import findings as spark_findings
    from braidwater.planner.calibrate import calibrate

    findings = [*_versions(), *_extras(), *spark_findings(spark), _options(), *_cache_directory()]
    torch_works = not any(one.name == "torch" and one.state != "good" for one in findings)
    if torch_works:
        findings.append(tried("gang of two processes", _try_gang))
    machine = calibrate(collectives=torch_works and findings[-1].state == "good")
    if json:
        print_json({"findings": [asdict(one) for one in findings], "machine": machine.to_json()})
    else:
        width = max(len(one.name) for one in findings)
        for one in findings:
            typer.echo(f"{_MARKS[one.state]}  {one.name:<{width}}  {one.detail}")
        typer.echo(
            f"\nThis machine: {machine.name}, {machine.cores} cores, {format_bytes(machine.memory_bytes)} of memory"
        )
        for line in _rates(machine):
            typer.echo(f"    {line}")
    if any(one.state == "bad" for one in findings):
        raise typer.Exit(1)


def _versions() -> list[Finding]:
    old = sys.version_info < (3, 11)
    found = [
        Finding(
            "Python", "bad" if old else "good", f"{platform.python_version()}" + (", 3.11 is needed" if old else "")
        )
    ]
    try:
        found.insert(0, Finding("braidwater", "good", version("braidwater")))
    except PackageNotFoundError:
        return [*found, Finding("braidwater", "missing", "not installed; runs from a folder")]
    for requirement in requires("braidwater") or []:
        if "extra ==" not in requirement:
            found.append(_package(requirement))
    return found


def _package(requirement: str) -> Finding:
    """Whether an installed package has the version that ours asks for."""
    name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
    try:
        installed = version(name)
    except PackageNotFoundError:
        return Finding(name, "bad", f"is missing: pip install '{requirement}'")
    try:
        from packaging.requirements import Requirement
    except ImportError:  # comes with most packages, and is none of ours
        return Finding(name, "good", installed)
    wanted = Requirement(requirement)
    fits = wanted.specifier.contains(installed, prereleases=True)
    return Finding(
        wanted.name, "good" if fits else "bad", installed + ("" if fits else f", {wanted.specifier} is needed")
    )


def _extras() -> list[Finding]:
    found = []
    for name, use in _OPTIONAL.items():
        try:
            found.append(Finding(name, "good", version(name)))
        except PackageNotFoundError:
            found.append(Finding(name, "missing", f"for {use}: {how_to_install(name)}"))
    return found


def _options() -> Finding:
    options = current_options()
    return Finding("options", "good", f"memory {format_bytes(options.memory)}, workers {options.workers}")


def _cache_directory() -> list[Finding]:
    options = current_options()
    folder = options.cache_directory
    probe = folder / f"probe-{uuid4().hex[:8]}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"\0" * 4096)
    except OSError as error:
        return [
            Finding("cache directory", "bad", f"{folder}: {error.strerror}; set BRAIDWATER_CACHE to a folder of yours")
        ]
    finally:
        probe.unlink(missing_ok=True)
    used = sum(file.stat().st_size for file in (folder / "blocks").glob("*.blocks"))
    free = shutil.disk_usage(folder).free
    quota = f"{format_bytes(used)} used of {format_bytes(options.cache_quota)}, {format_bytes(free)} free on the disk"
    return [
        Finding("cache directory", "good", str(folder)),
        Finding("cache quota", "good" if free > 10**9 else "bad", quota),
    ]


def _try_gang() -> str:
    import time

    from braidwater.engines import LocalEngine

    started = time.perf_counter()
    answers: list[Any] = LocalEngine(2).gang(_rank_and_process, 2)
    if [rank for rank, _ in answers] != [0, 1] or os.getpid() in [process for _, process in answers]:
        raise RuntimeError(f"the processes answered {answers}")
    return f"torch with gloo starts in {time.perf_counter() - started:.1f} s"


def _rank_and_process(member: Any) -> tuple[int, int]:
    import torch
    import torch.distributed as collective

    total = torch.ones(1)
    collective.all_reduce(total)
    if total.item() != member.size:
        raise RuntimeError(f"an all-reduce of ones over {member.size} processes gave {total.item()}")
    return member.rank, os.getpid()


def _rates(machine: Any) -> list[str]:
    return [
        f"memory      {format_bytes(machine.memory_rate)}/s a core, {format_bytes(machine.memory_rate_all)}/s together",
        f"products    {machine.gemm_float32 / 1e9:.0f} GFLOP/s float32, {machine.gemm_float64 / 1e9:.0f} GFLOP/s float64 a core",
        f"fused pass  {120 / machine.fused_flops * 1e9:.1f} ns a row and core (30 float32 columns)",
        f"decoding    {format_bytes(machine.decode_parquet)}/s Parquet, {format_bytes(machine.decode_duckdb)}/s DuckDB a core",
        f"disk        {format_bytes(machine.disk_read)}/s read past the system's cache, {format_bytes(machine.copy)}/s from it",
        f"all-reduce  {machine.collective_latency * 1e3:.2f} ms and {machine.collective_byte * 1e9:.2f} ns a byte, two processes",
    ]
