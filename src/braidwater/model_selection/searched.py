"""A search as a model: fitted by searching, worth what its best model is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from braidwater.model_selection.searching import search
from braidwater.model_selection.space import SpaceChoice
from braidwater.model_selection.study import Study
from braidwater.tables import Table


class Searched:
    """``fit`` searches, everything else is that of the best model. `options` are those of `search`.

    Cross validation of it is nested: hyperparameters are chosen within the training rows of each outer fold, whose test rows
    they have not seen (Cawley and Talbot 2010 on what is claimed otherwise). It costs the search once a fold::

        cross_validate(Searched(LogisticRegression(), {"alpha": LogFloat(1e-4, 1)}, validation=KFold(5)), table, label="late")
    """

    study_: Study
    model_: Any

    def __init__(self, model: Any, space: SpaceChoice, **options: Any) -> None:
        self.model = model
        self.space = space
        self.options = options

    @property
    def target(self) -> str:
        """What the model learns: class, number, none, or unknown where only the label tells."""
        found: str = getattr(self.model, "target", "unknown")
        return found

    def fit(self, data: Any, *, label: str | None = None, **arguments: Any) -> Self:
        """Search on a table, and load the best model."""
        given = arguments if label is None else {"label": label, **arguments}
        self.study_ = search(self.model, self.space, data, **self.options, **given)
        self.model_ = self.study_.best_model()
        return self

    def evaluate(self, data: Any) -> dict[str, Any]:
        """How good the best model's predictions are."""
        found: dict[str, Any] = self.model_.evaluate(data)
        return found

    def predict(self, data: Any) -> Table:
        """The best model's predictions."""
        found: Table = self.model_.predict(data)
        return found

    def save(self, path: str | Path, **options: Any) -> Path:
        """Write the best model into the folder `path`."""
        found: Path = self.model_.save(path, **options)
        return found
