"""English words cut to their stems: M. F. Porter, An algorithm for suffix stripping, Program 14(3), 1980.

A word is read as consonants and vowels, [C](VC)^m[V]; `measure` is that m, and the suffixes of five steps are cut or replaced
where what stays is long enough by it.
"""

from __future__ import annotations

import re

_CONSONANT = "(?:[^aeiouy]|(?<![^aeiou])y)"  # y is a vowel after a consonant
_VOWEL = "(?:[aeiou]|(?<=[^aeiou])y)"
_MEASURE = re.compile(f"{_VOWEL}+{_CONSONANT}+")
_HAS_VOWEL = re.compile(_VOWEL)
_DOUBLE = re.compile(r"([^aeiouy])\1$")
_SHORT_END = re.compile(f"{_CONSONANT}{_VOWEL}(?![wxy]){_CONSONANT}$")

STEP_2 = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "bli": "ble", "alli": "al",
    "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize", "ation": "ate", "ator": "ate", "alism": "al",
    "iveness": "ive", "fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble", "logi": "log",
}  # fmt: skip
STEP_3 = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
STEP_4 = (
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "sion", "tion", "ou", "ism", "ate", "iti",
    "ous", "ive", "ize",
)  # fmt: skip


def stem(word: str) -> str:
    """The stem of a word in lower case.

    >>> stem("relational"), stem("hopping"), stem("generalizations"), stem("sky")
    ('relat', 'hop', 'gener', 'sky')
    """
    if len(word) <= 2:
        return word
    word = _past(_plural(word))
    if word.endswith("y") and _HAS_VOWEL.search(word[:-1]):
        word = word[:-1] + "i"
    word = _replaced(_replaced(word, STEP_2), STEP_3)
    return _without_e(_without_suffix(word))


def measure(word: str) -> int:
    """How often a vowel group is followed by a consonant group.

    >>> [measure(word) for word in ("tree", "trouble", "troubles", "oaten")]
    [0, 1, 2, 2]
    """
    return len(_MEASURE.findall(word))


def _plural(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _past(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if measure(word[:-3]) > 0 else word
    for suffix in ("ed", "ing"):
        rest = word.removesuffix(suffix)
        if rest != word and _HAS_VOWEL.search(rest):
            if rest.endswith(("at", "bl", "iz")):
                return rest + "e"
            if _DOUBLE.search(rest) and rest[-1] not in "lsz":
                return rest[:-1]
            return rest + "e" if measure(rest) == 1 and _SHORT_END.search(rest) else rest
    return word


def _replaced(word: str, suffixes: dict[str, str]) -> str:
    for suffix in sorted(suffixes, key=len, reverse=True):
        if word.endswith(suffix):
            rest = word.removesuffix(suffix)
            return rest + suffixes[suffix] if measure(rest) > 0 else word
    return word


def _without_suffix(word: str) -> str:
    for suffix in sorted(STEP_4, key=len, reverse=True):
        if word.endswith(suffix):
            rest = word.removesuffix("ion" if suffix in ("sion", "tion") else suffix)
            return rest if measure(rest) > 1 else word
    return word


def _without_e(word: str) -> str:
    if word.endswith("e"):
        rest = word[:-1]
        if measure(rest) > 1 or (measure(rest) == 1 and not _SHORT_END.search(rest)):
            word = rest
    return word[:-1] if word.endswith("ll") and measure(word[:-1]) > 1 else word
