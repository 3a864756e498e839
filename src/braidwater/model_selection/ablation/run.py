"""Leave one component out: every variant is a trial of a search over what is left out and over seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from braidwater.engines import Engine
from braidwater.errors import OptionError
from braidwater.model_selection.ablation.components import FULL, Component, Fit, Wish, components_of
from braidwater.model_selection.ablation.result import REPEAT, WITHOUT, Ablation
from braidwater.model_selection.base import Budget
from braidwater.model_selection.searching import search
from braidwater.model_selection.space import Choice
from braidwater.model_selection.trial_run import MetricChoice, metric_name
from braidwater.model_selection.variants import default_metric, is_made, is_trainer, variant
from braidwater.tables import table


def ablate(
    model: Any,
    data: Any,
    *,
    components: Wish = None,
    metric: MetricChoice | None = None,
    direction: str = "auto",
    repeats: int | None = None,
    validation: Any = 0.2,
    workers: int | None = None,
    engine: Engine | None = None,
    storage: str | Path | None = None,
    name: str = "ablation",
    resume: bool = True,
    seed: int = 0,
    retries: int = 1,
    trial_timeout: float | None = None,
    **arguments: Any,
) -> Ablation:
    """What each component of `model` is worth: it is trained as it is, and once more without each of them.

    `model` is an unfitted estimator or `Trainer`, `arguments` go to its ``fit`` (``label``, ``features``, ...). `components` are
    ``"features"`` (each column, the default), ``"layers"`` (each layer of a net that gives what it takes), or those to try: a
    list, or a dictionary by name, of columns, lists of columns that go together, `Columns`, `Layers` and `Setting`.

    Each of them is trained `repeats` times, each time from another seed (3, or 1 where the model has no seed), and compared with
    the whole model of the same seed on the same rows. With folds as `validation` the folds count as repeats.

    Trials, workers, `storage` and `resume` are those of `search`: failures are recorded, an interrupted ablation goes on where it
    was. Costs ``repeats * (components + 1)`` trainings; the rows are read and encoded once for each set of columns.

    What cannot be left out (the only feature, a layer whose input and output differ in shape) is an error before anything runs.
    """
    if is_made(model) or not hasattr(model, "fit"):
        raise OptionError("model", type(model).__name__, "an unfitted estimator or a Trainer")
    rows = table(data)
    chosen = components_of(components, model, rows, arguments)
    fits: dict[str, Fit] = {FULL: (model, dict(arguments))}
    fits |= {own: component.left_out(model, rows, arguments) for own, component in chosen.items()}
    seeded = _seed_name(model) is not None
    if repeats is None:
        repeats = 3 if seeded else 1
    if repeats < 1 or (repeats > 1 and not seeded):
        wanted = (
            "at least 1" if seeded else f"1: a {type(model).__name__} has no seed. Folds as validation show a spread"
        )
        raise OptionError("repeats", repeats, wanted)
    wish = default_metric(model, validation is not None) if metric is None else metric
    study = search(
        _Variants(fits),
        {WITHOUT: _LeftOut([*fits], chosen), REPEAT: Choice(list(range(repeats)))},
        rows,
        metric=wish if isinstance(wish, str) else _OfTheModel(wish),
        direction=direction,
        budget=Budget(trials=len(fits) * repeats),
        sampler="grid",
        validation=validation,
        workers=workers,
        engine=engine,
        storage=storage,
        name=name,
        resume=resume,
        keep=1,
        seed=seed,
        retries=retries,
        trial_timeout=trial_timeout,
        **arguments,
    )
    return Ablation(study)


@dataclass(frozen=True)
class _LeftOut(Choice):
    """Names of components; what they stand for is part of what a stored study must have in common with this one."""

    what: Mapping[str, Component] = field(default_factory=dict)


class _Variants:
    """Makes the variant of a trial."""

    def __init__(self, fits: Mapping[str, Fit]) -> None:
        self._fits = fits

    def __call__(self, parameters: Mapping[str, Any]) -> _Variant:
        model, arguments = self._fits[parameters[WITHOUT]]
        return _Variant(_reseeded(model, parameters[REPEAT]), arguments, list(self._fits.values()))


class _Variant:
    """A model that is fitted with arguments of its own, one of `fits`. It shows what the fitted model knows, and is not saved."""

    def __init__(self, model: Any, arguments: Mapping[str, Any], fits: Sequence[Fit]) -> None:
        self.model = model
        self.arguments = arguments
        self.fits = fits

    def fit(self, rows: Any, *, validation: Any = None, **_: Any) -> Self:
        given = dict(self.arguments)
        if validation is not None and is_trainer(self.model):
            given["validation"] = validation
        self.model.fit(rows, **given)
        return self

    def evaluate(self, rows: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.model.evaluate(rows)
        return found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not name.endswith("_"):
            raise AttributeError(name)
        return getattr(self.model, name)


class _OfTheModel:
    """A metric of (fitted model, rows) that is handed the model itself."""

    def __init__(self, metric: Callable[..., float]) -> None:
        self._metric = metric
        self.__name__ = metric_name(metric)

    def __call__(self, made: _Variant, rows: Any) -> float:
        return self._metric(made.model, rows)


def _seed_name(model: Any) -> str | None:
    """How the model calls its seed."""
    if is_trainer(model):
        return "seed"
    return next((name for name in ("random_state", "seed") if name in model.get_params(deep=False)), None)


def _reseeded(model: Any, repeat: int) -> Any:
    """A copy with the seed of a repetition: its own, one more, ..."""
    name = _seed_name(model)
    return variant(model, {} if name is None else {name: (getattr(model, name) or 0) + repeat})
