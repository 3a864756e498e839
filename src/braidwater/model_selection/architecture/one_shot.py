"""One-shot search: a supernet is trained once, its paths are ranked with the weights that they share, the best are trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from braidwater.blocks import BlockSource
from braidwater.deep.inputs import FlatDesign
from braidwater.engines import Engine, default_engine
from braidwater.errors import OptionError
from braidwater.events import running
from braidwater.metrics import ClassEvaluation, NumberEvaluation
from braidwater.model_selection.architecture.space import PREFIX, Architecture
from braidwater.model_selection.architecture.supernet import Supernet, SupernetOf
from braidwater.model_selection.base import cost, direction_of
from braidwater.model_selection.searching import search
from braidwater.model_selection.study import Study
from braidwater.model_selection.variants import is_trainer, variant
from braidwater.tables import Table, table, train_test_split

RANK = "rank"


@dataclass(frozen=True)
class RankedPath:
    """The decisions of a path, and the metric of the rows held out with the weights of the supernet."""

    choices: dict[str, Any]
    value: float


@dataclass(frozen=True)
class OneShot:
    """What a one-shot search found: the `supernet` (its trainer), the `ranking` of paths, best first, and the `study` of the nets
    that were trained anew.

    A trial's parameter ``rank`` is a path's place in the ranking.
    """

    supernet: Any
    ranking: list[RankedPath]
    study: Study

    @property
    def best_choices(self) -> dict[str, Any]:
        """The decisions of the best net that was trained anew."""
        best: RankedPath = self.ranking[self.study.best_parameters[RANK]]
        return best.choices

    def best_model(self, **options: Any) -> Any:
        """That net's trainer, fitted."""
        return self.study.best_model(**options)


def one_shot(
    trainer: Any,
    data: Any,
    *,
    metric: str | None = None,
    paths: int = 200,
    retrain: int = 3,
    epochs: int | None = None,
    validation: Any = 0.2,
    seed: int = 0,
    engine: Engine | None = None,
    workers: int | None = None,
    storage: str | Path | None = None,
    name: str = "one-shot",
    label: str,
    features: Any = None,
    exclude: Any = (),
    weight: str | None = None,
) -> OneShot:
    """Single-path one-shot search (Guo et al. 2019, arXiv 1904.00420).

    `trainer` is a `Trainer` of an `Architecture` whose options have one shape. A supernet of all options is trained for `epochs`
    (those of the trainer, unless told), on one worker: each step one path, drawn uniformly. Then `paths` paths (all, where there
    are no more) are compared by `metric` (a figure of `evaluate`; log_loss or rmse) on the rows held out, with the weights that
    they share. The best `retrain` are trained from the beginning as trials of a search, with the trainer's own settings.

    Ranks with shared weights are a hint and no proof: the study compares nets that were trained. Costs one training of the
    supernet, a pass over the rows held out for each path, and `retrain` trainings.
    """
    architecture = getattr(trainer, "module", None)
    if not is_trainer(trainer) or not isinstance(architecture, Architecture):
        raise OptionError(
            "trainer", type(trainer).__name__, "a Trainer of an Architecture: Trainer(Architecture(...), ...)"
        )
    for what, value in (("paths", paths), ("retrain", retrain)):
        if value < 1:
            raise OptionError(what, value, "at least 1")
    rows, held_out = _split(data, validation, seed)
    given = {"label": label, "features": features, "exclude": exclude, "weight": weight}
    settings = {"module": SupernetOf(architecture), "strategy": "single", "seed": seed, "module_arguments": {}}
    supernet = variant(trainer, settings | ({} if epochs is None else {"epochs": epochs}))
    with running("one-shot search"):
        supernet.fit(rows, **given, engine=engine)
        ranking = _ranked(supernet, architecture.nets(paths, np.random.default_rng(seed)), held_out, metric, engine)
    count = min(retrain, len(ranking))
    study = search(
        _Retrained(trainer, [path.choices for path in ranking[:count]]),
        {RANK: list(range(count))},
        rows,
        metric=metric or _default(supernet),
        budget=count,
        sampler="grid",
        validation=held_out,
        workers=workers,
        engine=engine,
        storage=storage,
        name=name,
        seed=seed,
        **{what: value for what, value in given.items() if value},
    )
    return OneShot(supernet, ranking, study)


def _split(data: Any, validation: Any, seed: int) -> tuple[Table, Table]:
    rows = table(data)
    if isinstance(validation, float):
        return train_test_split(rows, validation, seed=seed)
    if validation is None or isinstance(validation, int):
        raise OptionError(
            "validation", validation, "a share of the rows between 0 and 1, or a table: paths are ranked on it"
        )
    return rows, table(validation)


def _ranked(
    trainer: Any, candidates: list[dict[str, Any]], rows: Table, metric: str | None, engine: Engine | None
) -> list[RankedPath]:
    """Every path's metric; the rows are encoded once."""
    engine = engine or default_engine()
    metric = metric or _default(trainer)
    encoding = trainer.encoding_.for_evaluation()
    predictor = trainer._predictor(encoding)
    design: Any = FlatDesign(predictor.form)
    classes = trainer.classes_
    found = []
    module: Supernet = trainer.module_
    with BlockSource(rows, encoding, passes=len(candidates)) as source:
        for choices in candidates:
            module.set_path(choices)
            test: Any = (
                NumberEvaluation(design, predictor)
                if classes is None
                else ClassEvaluation(design, predictor, len(classes))
            )
            figures = engine.aggregate(source, test)
            if metric not in figures:
                raise OptionError("metric", metric, f"one of {', '.join(figures)}")
            found.append(RankedPath(choices, float(figures[metric])))
    sign = 1.0 if direction_of(metric, "auto") == "minimize" else -1.0
    return sorted(found, key=lambda one: cost(one.value, sign))


def _default(trainer: Any) -> str:
    return "rmse" if trainer.classes_ is None else "log_loss"


class _Retrained:
    """Makes the trainer of one of the best paths."""

    def __init__(self, trainer: Any, choices: list[dict[str, Any]]) -> None:
        self._trainer = trainer
        self._choices = choices

    def __call__(self, parameters: Mapping[str, Any]) -> Any:
        chosen = self._choices[parameters[RANK]]
        return variant(self._trainer, {f"{PREFIX}{name}": value for name, value in chosen.items()})
