"""The language, as text cases: a script, a line, what it prints (or the error that it ends with)."""

from __future__ import annotations

from pathlib import Path

import pytest

from braidwater import dml
from braidwater.errors import BraidwaterError

FILES = sorted((Path(__file__).parent.parent / "cases" / "dml" / "language").glob("*.txt"))


def cases():
    for file in FILES:
        for text in file.read_text(encoding="utf-8").split("====\n"):
            script, _, answer = text.partition("\n----\n")
            name, _, script = script.partition("\n")
            yield pytest.param(script, answer, file.stem == "errors", id=f"{file.stem}: {name}")


@pytest.mark.parametrize("plain", [False, True], ids=["optimised", "as written"])
@pytest.mark.parametrize(("script", "answer", "fails"), list(cases()))
def test_a_script_says_what_is_expected(script, answer, fails, plain):
    shown: list[str] = []
    if not fails:
        dml.run(script, outputs=[], show=shown.append, plain=plain)
        assert "\n".join(shown).rstrip("\n") == answer.rstrip("\n")
        return
    with pytest.raises(BraidwaterError) as caught:
        dml.run(
            script, show=shown.append, plain=plain
        )  # all variables are asked for, so that nothing is left uncomputed
    wanted = answer.strip("\n")
    assert str(caught.value)[: len(wanted)] == wanted
