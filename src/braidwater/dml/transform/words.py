"""Columns of texts as counts of words, and columns of words as rows of a matrix of vectors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from braidwater.dml.scipy_on_demand import sparse
from braidwater.dml.values import dense
from braidwater.errors import DMLShapeError

_LETTERS = re.compile(r"[^\W\d_]+")


def words_of(text: str) -> list[str]:
    """Runs of letters, in small ones.

    >>> words_of("Graz is a town, 3x as big")
    ['graz', 'is', 'a', 'town', 'x', 'as', 'big']
    """
    return _LETTERS.findall(text.lower())


def counted(texts: Sequence[str | None], codes: Mapping[str, int]) -> Any:
    """How often each word of `codes` (from 1) stands in each text: a CSR matrix. Other words do not count."""
    rows, columns, counts = [], [], []
    for row, text in enumerate(texts):
        for word, count in Counter(words_of(text or "")).items():
            if word in codes:
                rows.append(row)
                columns.append(codes[word] - 1)
                counts.append(float(count))
    return sparse.csr_array(sparse.coo_array((counts, (rows, columns)), shape=(len(texts), len(codes))))


def embedded(codes: Any, vectors: Any) -> Any:
    """The row of `vectors` that each code (from 1) names; NaN for a word without a code.

    Raises DMLShapeError where a code has no row.
    """
    table = dense(vectors)
    known = ~np.isnan(codes)
    largest = int(codes[known].max(initial=0))
    if largest > len(table):
        raise DMLShapeError(f"The embedding has {len(table)} rows, and a word has the code {largest}.")
    found = np.full((len(codes), table.shape[1]), np.nan)
    found[known] = table[codes[known].astype(np.int64) - 1]
    return found
