"""Whether SystemDS's function scripts run here, and give what they give there.

SYSTEMDS_HOME=.../site-packages/systemds python benchmarks/dml_agreement.py

Each call of dml_agreement_cases/ is one script, run by braidwater (with SystemDS's folder of functions as library) and by
SystemDS (single node, one virtual machine for all); what both wrote is compared cell by cell. `--only kmeans` tries some,
`--own` calls our own library's functions instead of theirs, `--write` puts the table, or with `--own` that of our library, into
docs/dml-agreement.md.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from braidwater import dml
from braidwater.dml.run import LIBRARY
from dml_agreement_inputs import write_inputs
from dml_agreement_report import report, write_own, write_page
from dml_agreement_systemds import run_scripts, systemds_home, unpack_scripts

CASES = Path(__file__).with_name("dml_agreement_cases")
TOLERANCE = 1e-6
LIMIT = 120.0  # seconds a call


@dataclass(frozen=True)
class Case:
    """One call. `functions` are those it is about, `reason` says why cells are not compared as they are or, where there is no
    script, why there is none; `known` is what a difference is due to, `own` what one of our own library's function, `around`
    which defect of SystemDS the arguments avoid."""

    name: str
    functions: tuple[str, ...]
    script: str
    outputs: tuple[str, ...]
    tolerance: float
    reason: str
    known: str
    own: str
    around: str


@dataclass(frozen=True)
class Verdict:
    """`kind` is agrees, statistics (agree), differs, ours fails, theirs fails, both fail or not tried."""

    case: Case
    kind: str
    detail: str = ""


def read_cases() -> list[Case]:
    """All calls, by the files they stand in."""
    found = []
    for file in sorted(CASES.glob("*.txt")):
        for part in re.split(r"^== ", file.read_text(), flags=re.MULTILINE)[1:]:
            found.append(_case(part))
    return found


def _case(text: str) -> Case:
    title, *lines = text.splitlines()
    marked = {mark: " ".join(line[2:] for line in lines if line.startswith(f"{mark} ")) for mark in "~?-!+*"}
    outputs = next((line[3:] for line in lines if line.startswith("=> ")), "")
    script = "\n".join(line for line in lines if not line.startswith(("~ ", "? ", "- ", "! ", "+ ", "* ", "=> ", "#")))
    return Case(
        title.split()[0].replace(":", "_"),
        tuple(name.partition(":")[0] for name in title.split()),
        "" if marked["-"] else script.strip(),
        tuple(name.strip() for name in outputs.split(",") if name.strip()),
        float(marked["~"] or TOLERANCE),
        marked["-"] or marked["?"],
        marked["!"],
        marked["+"],
        marked["*"],
    )


def scripts_of(cases: Sequence[Case], inputs: dict[str, bool], folder: Path, side: str) -> dict[str, Path]:
    """The script of each case that has one, written so that its outputs become files in a folder of its own."""
    made = {}
    for case in cases:
        if case.script:
            made[case.name] = folder / side / f"{case.name}.dml"
            made[case.name].parent.mkdir(exist_ok=True)
            made[case.name].write_text(_script(case, inputs, folder, folder / side / case.name))
    return made


def _script(case: Case, inputs: dict[str, bool], folder: Path, out: Path) -> str:
    names = set(re.findall(r"[A-Za-z_]\w*", case.script))
    lines = []
    for name in sorted(names & set(inputs)):
        kind = ', data_type="frame", header=FALSE' if inputs[name] else ""
        lines.append(f'{name} = read("{folder}/{name}.csv", format="csv"{kind})')
    writes = [f'write({name}, "{out}.{name}.csv", format="csv")' for name in case.outputs]
    return "\n".join([*lines, case.script, *writes]) + "\n"


def run_ours(script: Path, library: Path | None, arguments: Mapping[str, str] | None = None) -> str:
    """Run a script by braidwater in its folder, with arguments by name; its error, empty where it ended well."""
    try:
        with _limit(LIMIT), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            folders = [library] if library else []
            dml.run(script, outputs=[], library=folders, nvargs=arguments, directory=script.parent)
        return ""
    except Exception as error:  # a failure is what is looked for
        return f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def _limit(seconds: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError(f"it took more than {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def judge(case: Case, ours: str | None, theirs: str | None, folder: Path) -> Verdict:
    """Compare what both sides wrote."""
    if not case.script:
        return Verdict(case, "not tried", case.reason)
    if ours or theirs:
        kind = "both fail" if ours and theirs else "ours fails" if ours else "theirs fails"
        return Verdict(case, kind, shortened(ours or theirs or ""))
    for name in case.outputs:
        file = f"{case.name}.{name}.csv"
        wrong = difference(cells_of(folder / "ours" / file), cells_of(folder / "theirs" / file), case.tolerance)
        if wrong:
            return Verdict(case, "differs", f"{name}: {wrong}")
    return Verdict(case, "statistics" if case.reason else "agrees", case.reason)


def cells_of(path: Path) -> list[list[str | float]]:
    """The cells of a CSV file, or of a folder of its parts."""
    files = sorted(path.glob("[0-9]*"), key=lambda each: int(each.name.split("-")[0])) if path.is_dir() else [path]
    rows = [line for file in files for line in file.read_text().splitlines() if line]
    return [[_cell(word) for word in line.split(",")] for line in rows]


def _cell(word: str) -> str | float:
    word = word.strip().strip('"')
    if word.upper() in ("TRUE", "FALSE"):
        return float(word.upper() == "TRUE")
    try:
        return float(word or 0)
    except ValueError:
        return word


def difference(ours: list[list[str | float]], theirs: list[list[str | float]], tolerance: float) -> str:
    """What is not the same, empty where all is."""
    shapes = [(len(rows), len(rows[0]) if rows else 0) for rows in (ours, theirs)]
    if shapes[0] != shapes[1]:
        return f"{shapes[0][0]} x {shapes[0][1]} here, {shapes[1][0]} x {shapes[1][1]} there"
    for row, (left, right) in enumerate(zip(ours, theirs, strict=True)):
        for column, (mine, other) in enumerate(zip(left, right, strict=True)):
            if not _same(mine, other, tolerance):
                return f"[{row + 1}, {column + 1}] is {mine} here, {other} there"
    return ""


def _same(mine: str | float, other: str | float, tolerance: float) -> bool:
    if isinstance(mine, str) or isinstance(other, str):
        return mine == other
    return bool(np.isclose(mine, other, rtol=tolerance, atol=tolerance, equal_nan=True))


def shortened(error: str) -> str:
    """The line of an error that says most."""
    lines = [line for line in error.splitlines() if line.strip()]
    return (lines[-1] if len(lines) > 1 and "Exception" in error else " ".join(lines[:2]))[:300]


def main() -> None:
    """Run all calls on both sides and say what became of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="functions to try")
    parser.add_argument("--own", action="store_true", help="call our library's functions where there are some")
    parser.add_argument("--write", action="store_true", help="write docs/dml-agreement.md")
    given = parser.parse_args()
    if given.write and given.only:
        parser.error("--write needs all calls")
    home = systemds_home()
    if home is None:
        sys.exit("Skipped: SYSTEMDS_HOME is no folder with SystemDS.jar and lib/, or there is no Java.")
    own = {path.stem for path in LIBRARY.glob("*.dml")}
    cases = [
        case
        for case in read_cases()
        if (not given.only or set(given.only) & set(case.functions)) and (not given.own or set(case.functions) & own)
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library = unpack_scripts(home, folder)
        inputs = write_inputs(folder)
        theirs = scripts_of(cases, inputs, folder, "theirs")
        ours = scripts_of(cases, inputs, folder, "ours")
        there = run_scripts(home, list(theirs.values()), folder, LIMIT)
        here = {each: run_ours(path, None if given.own else library) for each, path in ours.items()}
        verdicts = [
            judge(case, here.get(case.name), there.get(theirs[case.name]) if case.script else None, folder)
            for case in cases
        ]
        names = sorted(path.stem for path in library.glob("*.dml"))
    if given.only or given.own:
        names = sorted({name for case in cases for name in case.functions} & set(names))
    for verdict in verdicts:
        print(f"{verdict.kind:13} {verdict.case.name:28} {verdict.detail if verdict.kind != 'statistics' else ''}")
    print(report(verdicts, names))
    if given.write:
        (write_own if given.own else write_page)(verdicts, names)


if __name__ == "__main__":
    main()
