"""Fitting a model to all rows, or one to each group, in the same passes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from braidwater.errors import BraidwaterWarning
from braidwater.sql.place import Place
from braidwater.sql.rows import Counts, Key, TrainingRows


@dataclass(frozen=True)
class GroupModel:
    """The model of a group, or None where it has none, with its rows."""

    key: Key
    model: Any
    counts: Counts


def fit_each(place: Place, rows: TrainingRows, model: Any, *, verbose: bool = False) -> list[GroupModel]:
    """A fitted copy of `model` for each group of the rows: by `fit_groups`, which makes each pass for all of them at once."""
    options: dict[str, Any] = {"features": list(rows.features), "engine": place.engine}
    if rows.label is not None:
        options["label"] = rows.label
    if not rows.groups:
        return [GroupModel((), _fitted(lambda: model.fit(rows.table, **options), verbose=verbose), rows.counts[()])]
    from braidwater.model_selection import fit_groups

    found = _fitted(lambda: fit_groups(model, rows.table, by=list(rows.groups), min_rows=1, **options), verbose=verbose)
    models = []
    for key, counts in rows.counts.items():
        shown = rows.shown[key]
        try:
            one = found.model_of(shown[0] if len(shown) == 1 else shown) if counts.used else None
        except KeyError:
            one = None
        models.append(GroupModel(key, one, counts))
    return models


def _fitted(fit: Callable[[], Any], *, verbose: bool) -> Any:
    """Without our own warnings, if it is not to be `verbose`: scripts read figures (condition_no, num_iterations, NULLs)."""
    with warnings.catch_warnings():
        if not verbose:
            warnings.simplefilter("ignore", BraidwaterWarning)
        return fit()
