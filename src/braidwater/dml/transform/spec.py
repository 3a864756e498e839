"""What is to be done with each column: a JSON text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from braidwater.errors import DMLNameError, DMLValueError, UnsupportedError

KEYS = ("ids", "recode", "dummycode", "bin", "impute", "omit", "hash", "bag_of_words", "word_embedding", "K")
WORDS = {"bag_of_words": "words", "word_embedding": "vector"}
METHODS = ("equi-width", "equi-height")
_BARE_KEY = re.compile(r"([{,]\s*)([A-Za-z_]\w*)(\s*:)")
_BARE_VALUE = re.compile(r"(:\s*)(?!true\b|false\b|null\b)([A-Za-z_][\w-]*)")
IMPUTE = ("global_mean", "global_mode", "constant")


@dataclass(frozen=True)
class ColumnSpec:
    """One column: `code` is recode, bin, hash, words (counts of them), vector (of a word) or pass."""

    code: str = "pass"
    dummy: bool = False
    omit: bool = False
    bins: int = 0
    method: str = "equi-width"
    impute: str | None = None
    constant: Any = None
    hashed: int = 0


def parse_spec(text: str, names: list[str]) -> list[ColumnSpec]:
    """What to do with each of the columns `names`.

    Raises DMLValueError for what is no specification, DMLNameError for a column that is not there.
    """
    try:
        spec = loaded(text)
    except ValueError as error:
        raise DMLValueError(f"The specification is no JSON: {error}.", hint='{"ids": true, "recode": [1, 2]}') from None
    if not isinstance(spec, dict):
        raise DMLValueError("The specification must be a JSON object.")
    for key in spec:
        if key == "udf":
            raise UnsupportedError(f"transformencode does not do {key!r}; it does {', '.join(KEYS[1:-1])}.")
        if key not in KEYS:
            near = get_close_matches(key, KEYS, n=1)
            raise DMLValueError(
                f"The specification has no key {key!r}.",
                hint=f"Did you mean {near[0]!r}?" if near else f"Keys are {', '.join(KEYS)}.",
            )
    ids = bool(spec.get("ids", False))
    found: list[dict[str, Any]] = [{} for _ in names]
    for key in ("recode", "hash", *WORDS, "dummycode", "omit"):
        for place in _places(_listed(spec.get(key, [])), ids, names):
            _add(found[place], key, spec)
    for entry in spec.get("bin", []):
        (place,) = _places([entry.get("id", entry.get("name"))], ids, names)
        bins, method = int(entry.get("numbins", 10)), str(entry.get("method", "equi-width"))
        if bins < 1 or method not in METHODS:
            raise DMLValueError(
                f"bin needs numbins above 0 and a method of {', '.join(METHODS)}, and has {bins} and {method!r}."
            )
        found[place] |= {"code": "bin", "bins": bins, "method": method}
    for entry in spec.get("impute", []):
        (place,) = _places([entry.get("id", entry.get("name"))], ids, names)
        method = entry.get("method", "constant")
        if method not in IMPUTE:
            raise DMLValueError(f"impute has no method {method!r}.", hint=f"It has {', '.join(IMPUTE)}.")
        found[place] |= {"impute": method, "constant": entry.get("value")}
    return [ColumnSpec(**each) for each in found]


def loaded(text: str) -> Any:
    """JSON, also as scripts write it: single quotes, names without any."""
    try:
        return json.loads(text)
    except ValueError:
        quoted = _BARE_KEY.sub(r'\1"\2"\3', text.replace("'", '"'))
        return json.loads(_BARE_VALUE.sub(r'\1"\2"', quoted))


def _listed(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):  # {"attributes": [1, 2]}, as older versions write it
        value = value.get("attributes", [])
    return value if isinstance(value, list) else [value]


def _add(column: dict[str, Any], key: str, spec: dict[str, Any]) -> None:
    if key == "dummycode":
        column["dummy"] = True
    elif key == "omit":
        column["omit"] = True
    elif key == "hash":
        column |= {"code": "hash", "hashed": int(spec.get("K", 1000))}
    else:
        column["code"] = WORDS.get(key, "recode")


def _places(columns: Iterable[Any], ids: bool, names: list[str]) -> list[int]:
    found = []
    for column in columns:
        if ids or isinstance(column, int):
            place = int(column) - 1
            if not 0 <= place < len(names):
                raise DMLNameError(f"The specification names column {column}, and there are {len(names)}.")
        elif column in names:
            place = names.index(column)
        else:
            near = get_close_matches(str(column), names, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(names)}."
            raise DMLNameError(f"The specification names column {column!r}, which is not there.", hint=hint)
        found.append(place)
    return found
