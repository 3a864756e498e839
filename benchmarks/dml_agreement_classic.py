"""Whether the classic algorithm scripts of SystemML give here what SystemDS gives for them.

SYSTEMDS_HOME=.../site-packages/systemds SYSTEMDS_SCRIPTS=.../scripts/algorithms python benchmarks/dml_agreement_classic.py

SYSTEMDS_SCRIPTS holds the 34 scripts: scripts/algorithms of the tag 3.2.0-rc2 of SystemDS's repository, the last one with all.
Each call of dml_agreement_classic.txt runs a script here and there (single node, 3.4) with the same arguments on the same files,
mostly scikit-learn's small data; the files that both wrote are compared cell by cell, predictions being made by each side's own
model. `--only GLM` tries some, `--write` puts the table into docs/dml-agreement.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from braidwater.dml.run import LIBRARY
from dml_agreement import LIMIT, TOLERANCE, cells_of, run_ours, shortened
from dml_agreement_classic_inputs import write_inputs
from dml_agreement_report import write_classic
from dml_agreement_systemds import run_scripts, systemds_home

CALLS = Path(__file__).with_name("dml_agreement_classic.txt")
SIDES = ("ours", "theirs")
_BINNING = (LIBRARY / "binning.dml").read_text().replace("m_binning", "binning")
REPLACED = {  # what SystemDS 3.4 does not have any more, and what stands in its place there
    r"(?ms)^binning = externalFunction.*?implemented in \(.*?\)": _BINNING,
    r"(?m)^A = transform\(.*spec=.*": """[A, meta] = transformencode(target=raw, spec=specJson)
write(meta, $TRANSFORM_PATH + "/meta", format="csv")
write(specJson, $TRANSFORM_PATH + "/spec.json")""",
    r"(?m)^A = transform\(.*apply.*": """spec = read($APPLY_TRANSFORM_PATH + "/spec.json", data_type="scalar",
  value_type="string")
meta = read($APPLY_TRANSFORM_PATH + "/meta", data_type="frame", format="csv")
A = transformapply(target=raw, spec=spec, meta=meta)""",
}


@dataclass(frozen=True)
class Call:
    """A script with arguments; a value that names an input or ``call.output`` stands for that file.

    What is compared are the files of `outputs` or, where they are not determined for the `reason`, the variable `score` of the
    script `judge`, which reads them. `known` is what a difference is due to.
    """

    name: str
    script: str
    arguments: Mapping[str, str]
    outputs: tuple[str, ...]
    judge: str
    tolerance: float
    reason: str
    known: str


@dataclass(frozen=True)
class Compared:
    """What became of a call: the greatest difference of a cell, relative where the cell is above 1, or why there is none."""

    call: Call
    cells: int = 0
    difference: float = np.nan
    trouble: str = ""

    @property
    def agrees(self) -> bool:
        return not self.trouble and self.difference <= self.call.tolerance


def read_calls() -> list[Call]:
    """All calls, in an order in which models come before their predictions."""
    return [_call(part) for part in re.split(r"^== ", CALLS.read_text(), flags=re.MULTILINE)[1:]]


def _call(text: str) -> Call:
    title, *lines = text.splitlines()
    marked = {mark: " ".join(line[2:] for line in lines if line.startswith(f"{mark} ")) for mark in "@~?!"}
    outputs = next((line[3:] for line in lines if line.startswith("=> ")), "")
    judge = [line for line in lines if not line.startswith(("@ ", "~ ", "? ", "! ", "=> ", "#"))]
    return Call(
        title.replace(" ", "_"),
        title.split()[0],
        dict(word.split("=", 1) for word in marked["@"].split()),
        tuple(name.strip() for name in outputs.split(",") if name.strip()),
        "\n".join(judge).strip(),
        float(marked["~"] or TOLERANCE),
        marked["?"],
        marked["!"],
    )


@dataclass(frozen=True)
class Side:
    """Where one side's scripts and what they write lie, and which files arguments may name."""

    folder: Path
    inputs: Mapping[str, Path]
    calls: Sequence[str]

    def output(self, call: str, name: str) -> Path:
        return self.folder / f"{call}.{name}"

    def arguments(self, call: Call) -> dict[str, str]:
        """The arguments of a call, paths in place of names."""
        written = {name.partition("/")[0]: str(self.output(call.name, name.partition("/")[0])) for name in call.outputs}
        return {name: self._value(value) for name, value in call.arguments.items()} | written

    def _value(self, value: str) -> str:
        call, _, name = value.partition(".")
        if call in self.calls and name:
            return str(self.output(call, name))
        return str(self.inputs.get(value, value))

    def written(self, call: Call) -> Path:
        """The script of a call, and its arguments beside it, as SystemDS's runner wants them."""
        lines = [f"{name}={value}" for name, value in self.arguments(call).items()]
        path = self.folder / f"{call.name}.dml"
        path.with_name(f"{path.name}.args").write_text("\n".join(lines) + "\n")
        return path

    def judged(self, call: Call) -> Path:
        """The script that computes what is compared from what a call wrote."""
        path = self.folder / f"{call.name}.judge.dml"
        used = set(re.findall(r"[A-Za-z_]\w*", call.judge))
        files = {name: self.inputs[name] for name in sorted(used & set(self.inputs))}
        files |= {Path(name).name.replace(".", "_"): self.output(call.name, name) for name in call.outputs}
        reads = [f'{name} = read("{file}")' for name, file in files.items()]
        write = f'write(score, "{self.output(call.name, "score")}", format="csv")'
        path.write_text("\n".join([*reads, call.judge, write]) + "\n")
        return path


def run_all(calls: Sequence[Call], home: Path, scripts: Path, folder: Path) -> list[Compared]:
    """Run all calls on both sides and compare what they wrote."""
    inputs = write_inputs(folder)
    names = [call.name for call in calls]
    ours, theirs = (Side(folder / side, inputs, names) for side in SIDES)
    for side in (ours, theirs):
        side.folder.mkdir()
        for call in calls:
            text = (scripts / f"{call.script}.dml").read_text()
            side.written(call).write_text(text if side is ours else _for_systemds(text))
    there = run_scripts(home, [path for call in calls for path in _scripts(theirs, call)], folder, LIMIT)
    found = []
    for call in calls:
        errors = []
        for script in _scripts(ours, call):
            arguments = {} if script.name.endswith(".judge.dml") else ours.arguments(call)
            errors.append(run_ours(script, None, arguments))
        failed = [there[script] for script in _scripts(theirs, call) if there[script]]
        found.append(_compared(call, ours, theirs, next(filter(None, errors), ""), next(iter(failed), "")))
    return found


def _scripts(side: Side, call: Call) -> list[Path]:
    return [side.folder / f"{call.name}.dml", *([side.judged(call)] if call.judge else [])]


def _for_systemds(text: str) -> str:
    """A script without what SystemDS 3.4 refuses."""
    for pattern, new in REPLACED.items():
        text = re.sub(pattern, lambda _, new=new: new, text)
    return text


def _compared(call: Call, ours: Side, theirs: Side, here: str, there: str) -> Compared:
    if here or there:
        sides = "on both sides" if here and there else "here" if here else "there"
        return Compared(call, trouble=f"an error {sides}: {shortened(here or there)}")
    cells, worst = 0, 0.0
    for name in ["score"] if call.judge else call.outputs:
        lacking = [side.folder.name for side in (ours, theirs) if not side.output(call.name, name).exists()]
        if lacking:
            return Compared(call, trouble=f"{name} is not written: {', '.join(lacking)}")
        mine, other = (values_at(side.output(call.name, name)) for side in (ours, theirs))
        if [len(row) for row in mine] != [len(row) for row in other]:
            return Compared(call, trouble=f"{name} has {len(mine)} rows here, {len(other)} there, or other columns")
        pairs = [pair for rows in zip(mine, other, strict=True) for pair in zip(*rows, strict=True)]
        cells, worst = cells + len(pairs), max([worst, *(_difference(*pair) for pair in pairs)])
    return Compared(call, cells, worst)


def values_at(path: Path) -> list[list[str | float]]:
    """The cells of a file, or of a folder of its parts, in the format csv or text."""
    rows = cells_of(path)
    about = path.with_name(f"{path.name}.mtd")
    told = json.loads(about.read_text()) if about.is_file() else {}
    if told.get("format") != "text" or told.get("data_type") != "matrix":
        return rows
    matrix = np.zeros((int(told["rows"]), int(told["cols"])))
    for (line,) in rows:
        row, column, value = str(line).split()
        matrix[int(row) - 1, int(column) - 1] = float(value)
    return matrix.tolist()


def _difference(mine: str | float, other: str | float) -> float:
    if isinstance(mine, str) or isinstance(other, str):
        return 0.0 if mine == other else np.inf
    if mine == other or (np.isnan(mine) and np.isnan(other)):
        return 0.0
    apart = abs(mine - other) / max(1.0, abs(other))
    return float(apart) if np.isfinite(apart) else np.inf


def main() -> None:
    """Run all calls on both sides and say what became of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="scripts to try")
    parser.add_argument("--keep", type=Path, help="an empty folder to leave the files in")
    parser.add_argument("--write", action="store_true", help="write docs/dml-agreement.md")
    given = parser.parse_args()
    if given.write and given.only:
        parser.error("--write needs all calls")
    home, scripts = systemds_home(), Path(os.environ.get("SYSTEMDS_SCRIPTS", "nowhere"))
    if home is None or not (scripts / "GLM.dml").is_file():
        sys.exit("Skipped: SYSTEMDS_HOME has no SystemDS.jar, SYSTEMDS_SCRIPTS no GLM.dml, or there is no Java.")
    calls = [call for call in read_calls() if not given.only or call.script in given.only]
    with tempfile.TemporaryDirectory() as name:
        found = run_all(calls, home, scripts, given.keep or Path(name))
    for each in found:
        kind = "agrees" if each.agrees else "differs"
        print(f"{kind:8} {each.call.name:32} {each.cells:7} cells  {each.difference:9.2g}  {each.trouble}")
    good = {each.call.script for each in found} - {each.call.script for each in found if not each.agrees}
    print(f"{len(good)} of {len({each.call.script for each in found})} scripts agree.")
    if given.write:
        write_classic(found)


if __name__ == "__main__":
    main()
