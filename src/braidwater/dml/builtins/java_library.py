"""The methods and functions of Java, and of SystemDS's UtilFunctions, that scripts use in `map`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

from braidwater.dml.builtins.stemmer import stem
from braidwater.dml.interpreter.printing import text_of


def java_text(value: Any) -> str:
    """A value as Java's String.valueOf writes it: truth values in lower case.

    >>> java_text(True), java_text(2.0), java_text(3)
    ('true', '2.0', '3')
    """
    return str(value).lower() if isinstance(value, bool) else text_of(value)


def split_recode_entry(cell: str) -> list[str]:
    """Category and number of a cell in the meta frame of transformencode, as ``graz·2``.

    >>> split_recode_entry("graz·2")
    ['graz', '2']
    """
    word, _, number = cell.rpartition("·")
    return [word, number]


def character_code(text: str, place: int) -> int:
    """The code of the character at a place from 1, 0 beyond the text."""
    return ord(text[place - 1]) if 0 < place <= len(text) else 0


def jaccard_similarity(first: str, second: str) -> float:
    """The characters that both have, as a part of those that either has.

    >>> jaccard_similarity("graz", "gratz")
    0.8
    """
    left, right = set(first), set(second)
    return len(left & right) / max(len(left | right), 1)


def word_error_rate(reference: str, hypothesis: str) -> float:
    """Words to insert, delete and replace (Levenshtein), as a part of the words of the longer text.

    >>> word_error_rate("the cat sat", "the cat sat down")
    0.25
    """
    first, second = reference.split(" "), hypothesis.split(" ")
    row = list(range(len(first) + 1))
    for count, word in enumerate(second, start=1):
        before, row = row, [count]
        for place, other in enumerate(first, start=1):
            row.append(min(row[-1] + 1, before[place] + 1, before[place - 1] + (word != other)))
    return row[-1] / max(len(first), len(second))


METHODS: dict[str, Callable[..., Any]] = {
    "length": len,
    "trim": str.strip,
    "toLowerCase": str.lower,
    "toUpperCase": str.upper,
    "contains": lambda s, part: part in s,
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "isEmpty": lambda s: not s,
    "equals": operator.eq,
    "equalsIgnoreCase": lambda s, other: s.lower() == other.lower(),
    "indexOf": str.find,
    "lastIndexOf": str.rfind,
    "replace": str.replace,
    "replaceAll": lambda s, pattern, new: re.sub(pattern, re.sub(r"\$(\d)", r"\\\1", new), s),
    "matches": lambda s, pattern: re.fullmatch(pattern, s) is not None,
    "concat": operator.add,
    "charAt": lambda s, place: s[int(place)],
    "substring": lambda s, first, last=None: s[int(first) : None if last is None else int(last)],
    "split": lambda s, pattern: re.split(pattern, s),
    "toString": java_text,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Integer.parseInt": int, "Integer.valueOf": int, "Long.parseLong": int, "Double.parseDouble": float, "Double.valueOf": float,
    "String.valueOf": java_text, "Math.abs": abs, "Math.round": lambda x: int(x + 0.5), "Math.floor": lambda x: float(x // 1),
    "Math.max": max, "Math.min": min, "Math.sqrt": lambda x: float(x) ** 0.5,
    "UtilFunctions.splitRecodeEntry": split_recode_entry, "UtilFunctions.getAsciiAtIdx": character_code,
    "UtilFunctions.jaccardSim": jaccard_similarity, "UtilFunctions.getWordErrorRate": word_error_rate,
    "PorterStemmer.stem": stem,
}  # fmt: skip
