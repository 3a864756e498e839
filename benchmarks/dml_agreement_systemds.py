"""SystemDS as it was installed: where it lies, its function scripts, and scripts run in one virtual machine.

SYSTEMDS_HOME is a folder with SystemDS.jar and lib/: of the Python package, ``site-packages/systemds``. Four functions import
scripts that are in its repository alone; SYSTEMDS_SOURCE is a checkout, and may be missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

RUNNER = Path(__file__).with_name("RunScripts.java")
OPENED = ("java.nio", "java.io", "java.util", "java.lang", "java.lang.ref", "java.util.concurrent", "sun.nio.ch")


def systemds_home() -> Path | None:
    """The folder of SystemDS, where it and Java are there."""
    home = os.environ.get("SYSTEMDS_HOME")
    if home is None or shutil.which("java") is None or not (Path(home) / "SystemDS.jar").is_file():
        return None
    return Path(home)


def unpack_scripts(home: Path, folder: Path) -> Path:
    """The scripts in SystemDS's jar, unpacked; the folder of its built-in functions."""
    with zipfile.ZipFile(home / "SystemDS.jar") as jar:
        jar.extractall(folder, [name for name in jar.namelist() if name.startswith("scripts/") and ".." not in name])
    staging = Path(os.environ.get("SYSTEMDS_SOURCE", "nowhere")) / "scripts" / "staging" / "entity-resolution"
    if staging.is_dir():
        shutil.copytree(staging, folder / "scripts" / "staging" / "entity-resolution")
    return folder / "scripts" / "builtin"


def run_scripts(home: Path, scripts: Sequence[Path], directory: Path, limit: float) -> dict[Path, str]:
    """Run scripts; the error of each, empty where it ended well.

    A script that takes more than `limit` seconds ends its virtual machine; those after it get another.
    """
    errors: dict[Path, str] = {}
    while waiting := [script for script in scripts if script not in errors]:
        _run_until_stuck(home, waiting, directory, limit, errors)
    return errors


def _run_until_stuck(
    home: Path, scripts: Sequence[Path], directory: Path, limit: float, errors: dict[Path, str]
) -> None:
    with open(directory / "systemds.log", "ab") as log:
        process = subprocess.Popen(_command(home, scripts), cwd=directory, stdout=log, stderr=log)
    began = time.monotonic()
    for script in scripts:
        done = script.with_name(script.name + ".done")
        while not done.is_file() and process.poll() is None and time.monotonic() - began < limit:
            time.sleep(0.05)
        if not done.is_file():
            ended = process.poll() is not None
            errors[script] = "the virtual machine ended" if ended else f"it took more than {limit:g} seconds"
            break
        errors[script] = done.read_text()
        began = time.monotonic()
    process.kill()
    process.wait()


def _command(home: Path, scripts: Sequence[Path]) -> list[str]:
    opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in OPENED]
    classes = f"{home / 'SystemDS.jar'}:{home / 'lib'}/*"
    vector = ["--add-modules=jdk.incubator.vector", "-Xmx3g"]
    return ["java", *vector, *opened, "-cp", classes, str(RUNNER), *map(str, scripts)]
