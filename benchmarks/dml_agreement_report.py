"""What became of the calls, as lines for the shell and as docs/dml-agreement.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dml_agreement import Verdict
    from dml_agreement_classic import Compared

PAGE = Path(__file__).parent.parent / "docs" / "dml-agreement.md"
WORDS = {
    "agrees": "cell by cell the same",
    "statistics": "random, and what is compared (a loss, a shape) is the same",
    "differs": "another result",
    "ours fails": "an error here alone",
    "theirs fails": "an error there alone",
    "both fail": "an error on both sides",
    "not tried": "not tried",
}
GOOD = ("agrees", "statistics")
CLASSIC = "\n## The classic scripts\n"
OWN = "\n## Our own library\n"


def report(verdicts: Sequence[Verdict], functions: Sequence[str]) -> str:
    """The counts of functions by the worst that happened to a call of each, and what is not called at all."""
    kinds = by_function(verdicts)
    missing = sorted(set(functions) - set(kinds))
    counts = Counter(kinds[name] for name in kinds if name in functions)
    lines = [f"{counts[kind]:4} {words}" for kind, words in WORDS.items() if counts[kind]]
    good = sum(counts[kind] for kind in GOOD)
    share = f"{good} of {len(functions)} functions run and agree ({good / max(len(functions), 1):.0%})."
    return "\n".join([*lines, share, *([f"No call: {', '.join(missing)}"] if missing else [])])


def by_function(verdicts: Iterable[Verdict]) -> dict[str, str]:
    """For each function the worst of its calls."""
    order = list(WORDS)
    found: dict[str, str] = {}
    for verdict in verdicts:
        for name in verdict.case.functions:
            found[name] = max(found.get(name, order[0]), verdict.kind, key=order.index)
    return found


def write_page(verdicts: Sequence[Verdict], functions: Sequence[str]) -> None:
    """Write what docs/dml-agreement.md says of SystemDS's functions."""
    _, classic, own = _page()
    lines = [_HEAD, *_counts(verdicts, functions), *_exceptions(verdicts), *_around(verdicts), *_random(verdicts), ""]
    PAGE.write_text("\n".join(lines) + classic + own)


def write_own(verdicts: Sequence[Verdict], functions: Sequence[str]) -> None:
    """Write what docs/dml-agreement.md says of our own library."""
    above, classic, _ = _page()
    rows = [
        f"| `{verdict.case.name}` | {WORDS[verdict.kind]} | {_cell(verdict.case.own or verdict.detail)} |"
        for verdict in sorted(verdicts, key=lambda each: each.case.name)
        if verdict.kind not in GOOD
    ]
    lines = [_OWN_HEAD, *_counts(verdicts, functions), "", "| call | what | why |", "| --- | --- | --- |", *rows, ""]
    PAGE.write_text(above + classic + OWN + "\n".join(lines))


def write_classic(found: Sequence[Compared]) -> None:
    """Write what docs/dml-agreement.md says of the classic scripts."""
    above, _, own = _page()
    scripts = {each.call.script for each in found}
    agreed = [each for each in found if each.agrees]
    good = scripts - {each.call.script for each in found if not each.agrees}
    rows = [
        f"| `{each.call.name}` | {_compared(each)} | {each.cells} | {each.difference:.1e} | "
        f"{_cell(each.call.known or each.trouble or each.call.reason)} |"
        for each in found
    ]
    lines = [
        _CLASSIC_HEAD,
        f"**{len(good)} of {len(scripts)}** scripts run and agree in all their calls, {len(agreed)} of {len(found)} calls do:",
        "", "| call | outputs | cells | greatest difference | |", "| --- | --- | --- | --- | --- |", *rows, "",
    ]  # fmt: skip
    PAGE.write_text(above + CLASSIC + "\n".join(lines).replace("| nan |", "| |") + own)


def _compared(each: Compared) -> str:
    names = [name.rpartition("/")[2] for name in each.call.outputs]
    return ("a score of " if each.call.judge else "") + ", ".join(f"`{name}`" for name in names)


def _page() -> tuple[str, str, str]:
    """The page's three parts: of SystemDS's functions, of the classic scripts, of our own library."""
    above, title, own = PAGE.read_text().partition(OWN)
    above, between, classic = above.partition(CLASSIC)
    return above, between + classic, title + own


def _counts(verdicts: Sequence[Verdict], functions: Sequence[str]) -> list[str]:
    kinds = by_function(verdicts)
    counts = Counter(kinds[name] for name in functions if name in kinds)
    good = sum(counts[kind] for kind in GOOD)
    rows = [f"| {words} | {counts[kind]} |" for kind, words in WORDS.items() if counts[kind]]
    return [
        f"**{good} of {len(functions)}** functions ({good / len(functions):.0%}) run and agree:",
        "", "| | functions |", "| --- | --- |", *rows,
    ]  # fmt: skip


def _exceptions(verdicts: Sequence[Verdict]) -> list[str]:
    rows = [
        f"| `{verdict.case.name}` | {WORDS[verdict.kind]} | {_cell(verdict.case.known or verdict.detail)} |"
        for verdict in sorted(verdicts, key=lambda each: each.case.name)
        if verdict.kind not in GOOD
    ]
    return ["", "## Those that do not", "", "| function | what | why |", "| --- | --- | --- |", *rows]


def _around(verdicts: Sequence[Verdict]) -> list[str]:
    rows = [
        f"| `{verdict.case.name}` | {_cell(verdict.case.around)} |"
        for verdict in sorted(verdicts, key=lambda each: each.case.name)
        if verdict.case.around and verdict.kind in GOOD
    ]
    return [
        "",
        "## Where the arguments avoid a defect of SystemDS",
        "",
        "| function | the defect, and what is given |",
        "| --- | --- |",
        *rows,
    ]


def _random(verdicts: Sequence[Verdict]) -> list[str]:
    rows = [
        f"| `{verdict.case.name}` | {_cell(verdict.case.reason)} |"
        for verdict in sorted(verdicts, key=lambda each: each.case.name)
        if verdict.kind == "statistics"
    ]
    return ["", "## Compared by statistics", "", "| function | why, and what is compared |", "| --- | --- |", *rows]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


_HEAD = """# DML: agreement with SystemDS 3.4

The functions that SystemDS ships as scripts (`scripts/builtin`) are called here and there on the same small data, and what both
write is compared cell by cell, to 1e-6 unless a case says otherwise. Here they run with SystemDS's folder as `library=`; there
on a single node.

Made by `SYSTEMDS_HOME=... python benchmarks/dml_agreement.py --write`; the calls stand in `benchmarks/dml_agreement_cases`.
"""

_OWN_HEAD = """
Without `library=` a script calls the functions that come with braidwater, which are written anew ([their page](dml-library.md)).
The same calls of those that both have, by `python benchmarks/dml_agreement.py --own --write`:
"""

_CLASSIC_HEAD = """
The 34 algorithm scripts that SystemML had (`scripts/algorithms`, as of 3.2.0-rc2 of SystemDS, the last with all of them) run with
the same arguments on the same files, mostly scikit-learn's small data sets; the files that both wrote are compared cell by
cell, logs of iterations included. The difference is relative where a cell is above 1, and 1e-6 is allowed but where a score is
compared. SystemDS 3.4 itself no longer takes two of their built-ins: it is given `binning` of our library for the trees' function
in Java, and `transformencode` and `transformapply` for `transform`. Trees of categories end with one error on both sides: the
script hands `table` a matrix of two columns.

Made by `SYSTEMDS_HOME=... SYSTEMDS_SCRIPTS=... python benchmarks/dml_agreement_classic.py --write`; the calls stand in
`benchmarks/dml_agreement_classic.txt`.
"""
