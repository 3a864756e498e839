"""Texts of a frame taken apart into tokens: a row each, or a row a text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from braidwater.dml.builtins.base import Caller, builtin
from braidwater.dml.transform.hash_code import hash_code
from braidwater.dml.transform.spec import loaded
from braidwater.dml.values import Frame
from braidwater.errors import DMLShapeError, DMLValueError, OptionError

Token = tuple[int, str]  # the place in the text that it begins at, from 0, and the token
KEYS = ("algo", "algo_params", "out", "out_params", "tokenize_col", "id_cols", "format_wide", "apply_padding")
ENTRIES = {"position": ("int", "string"), "count": ("string", "int"), "hash": ("int", "int")}
"""What is said of each token, by its types: its place and itself, itself and how often, its hash and how often."""
PADDING = {"position": (-1, ""), "count": ("", -1), "hash": (0, 0)}
FEATURES = 1 << 20  # hashes that tokens are counted by, where nothing else is said


@builtin("tokenize(target: frame, spec: string, max_tokens: int)",
         'The words of a text column after the id columns, a row each: spec is {"algo": "split" or "ngram", "out": "position" '
         '(place and word), "count" (word and how often) or "hash" (hash and how often), "id_cols": [1], "tokenize_col": 2}. '
         'With "format_wide": true a text is one row of words, or of how often each of the first max_tokens hashes comes; with '
         '"apply_padding": true each has max_tokens rows or words.')  # fmt: skip
def tokenize(caller: Caller, target: Frame, spec: str, max_tokens: int) -> Frame:
    given = _checked(_parsed(spec), target)
    ids = [target.columns[place - 1].tolist() for place in given["id_cols"]]
    texts = target.columns[given["tokenize_col"] - 1].tolist()
    entries = _wide if given.get("format_wide") else _long
    rows: list[tuple[Any, ...]] = []
    for document, text in zip(zip(*ids, strict=True), texts, strict=True):
        tokens = list(_tokens("" if text is None else str(text), given))
        rows.extend((*document, *entry) for entry in entries(tokens, given, max_tokens))
    kinds = [target.types[place - 1] for place in given["id_cols"]]
    kinds += _wide_types(given, max_tokens) if given.get("format_wide") else ENTRIES[given["out"]]
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(kinds)
    return Frame.of([list(column) for column in columns], types=kinds)


def _parsed(spec: str) -> dict[str, Any]:
    try:
        given: dict[str, Any] = loaded(spec)
    except ValueError:
        raise DMLValueError(f"{spec!r} is no JSON.") from None
    if not isinstance(given, dict):
        raise DMLValueError("The specification of tokenize must be a JSON object.")
    return given


def _checked(spec: dict[str, Any], target: Frame) -> dict[str, Any]:
    for key in spec:
        if key not in KEYS:
            raise DMLValueError(f"tokenize does not know {key!r}.", hint=f"It knows {', '.join(KEYS)}.")
    for key in ("algo", "out", "tokenize_col", "id_cols"):
        if key not in spec:
            raise DMLValueError(f"The specification of tokenize lacks {key!r}.")
    if spec["algo"] not in ("split", "ngram"):
        raise OptionError("algo", spec["algo"], "split or ngram")
    if spec["out"] not in ENTRIES:
        raise OptionError("out", spec["out"], "position, count or hash")
    if spec["out"] == "count" and spec.get("format_wide"):
        raise OptionError("format_wide", True, "false with out=count: position and hash have a wide form")
    for place in (*spec["id_cols"], spec["tokenize_col"]):
        if not 1 <= place <= len(target.names):
            raise DMLShapeError(f"The frame has no column {place}: it has {len(target.names)}.")
    return spec


def _tokens(text: str, spec: dict[str, Any]) -> Iterator[Token]:
    options = spec.get("algo_params") or {}
    words = _split(text, options.get("regex", r"\s+"))
    if spec["algo"] == "split":
        return iter(words)
    shortest, longest = options.get("min_gram", 1), options.get("max_gram", 2)
    if str(options.get("ngram_type", "document")).lower() == "token":
        return _of_characters(words, shortest, longest)
    return _of_words(words, shortest, longest)


def _split(text: str, pattern: str) -> list[Token]:
    """
    >>> _split("a town  is", r"\\s+")
    [(0, 'a'), (2, 'town'), (8, 'is')]
    """
    found, begin = [], 0
    for word in re.split(pattern, text):
        if word:
            begin = text.index(word, begin)
            found.append((begin, word))
    return found


def _of_words(words: list[Token], shortest: int, longest: int) -> Iterator[Token]:
    for count in range(shortest, longest + 1):
        for first in range(len(words) - count + 1):
            part = words[first : first + count]
            yield part[0][0], _joined([word for _, word in part])


def _joined(words: list[str]) -> str:
    """One token of several words, as SystemDS writes it."""
    return words[0] if len(words) == 1 else '"(' + ", ".join(f"'{word}'" for word in words) + ')"'


def _of_characters(words: list[Token], shortest: int, longest: int) -> Iterator[Token]:
    for begin, word in words:
        for count in range(shortest, longest + 1):
            for first in range(len(word) - count + 1):
                yield begin + first, word[first : first + count]


def _long(tokens: list[Token], spec: dict[str, Any], most: int) -> list[tuple[Any, Any]]:
    found = _entries(tokens, spec)[:most]
    padding = PADDING[spec["out"]]
    return [*found, *[padding] * (most - len(found))] if spec.get("apply_padding") else found


def _entries(tokens: list[Token], spec: dict[str, Any]) -> list[tuple[Any, Any]]:
    if spec["out"] == "position":
        return [(begin + 1, word) for begin, word in tokens]
    if spec["out"] == "hash":
        return [(place + 1, count) for place, count in sorted(_hashes(tokens, spec).items())]
    counts = Counter(word for _, word in tokens)
    words = sorted(counts) if (spec.get("out_params") or {}).get("sort_alpha") else list(counts)
    return [(word, counts[word]) for word in words]


def _hashes(tokens: list[Token], spec: dict[str, Any]) -> Counter[int]:
    features = int((spec.get("out_params") or {}).get("num_features", FEATURES))
    if features < 1:
        raise OptionError("num_features", features, "at least 1")
    return Counter(hash_code(word) % features for _, word in tokens)


def _wide(tokens: list[Token], spec: dict[str, Any], most: int) -> list[tuple[Any, ...]]:
    if spec["out"] == "hash":
        counts = _hashes(tokens, spec)
        return [tuple(counts[place] for place in range(most))]
    words = [word for _, word in tokens[:most]]
    missing = PADDING["position"][1] if spec.get("apply_padding") else None
    return [(*words, *[missing] * (most - len(words)))]


def _wide_types(spec: dict[str, Any], most: int) -> list[str]:
    return ["int" if spec["out"] == "hash" else "string"] * most
