"""One-shot search: a supernet is trained once, its paths are ranked with the weights that they share, the best are trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from braidwater.blocks import BlockSource
from braidwater.blocks.mini_batches import MiniBatches
from braidwater.deep.inputs import FlatDesign, InputForm
from braidwater.engines import Engine, default_engine
from braidwater.errors import OptionError
from braidwater.events import running
from braidwater.metrics import ClassEvaluation, NumberEvaluation
from braidwater.model_selection.architecture.path_evolution import PathEvolution
from braidwater.model_selection.architecture.recalibration import batch_norms, recalibrate
from braidwater.model_selection.architecture.space import PREFIX, Architecture
from braidwater.model_selection.architecture.supernet import Supernet, SupernetOf
from braidwater.model_selection.base import cost, direction_of
from braidwater.model_selection.searching import search
from braidwater.model_selection.study import Study
from braidwater.model_selection.variants import is_trainer, variant
from braidwater.tables import Table, table, train_test_split

RANK = "rank"
RECALIBRATED_ROWS = 8192  # on which statistics of batches are computed anew; 20,000 pictures in the paper


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
    ranking: Literal["evolution", "random"] = "evolution",
    population: int = 50,
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
    they share: found by evolution in generations of `population` paths (`PathEvolution`), or at random. Statistics of batch
    normalisation are computed anew for each path, on about 8,000 training rows. The best `retrain` are trained from the
    beginning as trials of a search, with the trainer's own settings.

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
    if ranking not in ("evolution", "random"):
        raise OptionError("ranking", ranking, "evolution or random")
    # a first generation of all is what random search is
    evolution = PathEvolution(architecture, population if ranking == "evolution" else max(paths, 2), seed)
    rows, held_out = _split(data, validation, seed)
    given = {"label": label, "features": features, "exclude": exclude, "weight": weight}
    settings = {"module": SupernetOf(architecture), "strategy": "single", "seed": seed, "module_arguments": {}}
    supernet = variant(trainer, settings | ({} if epochs is None else {"epochs": epochs}))
    with running("one-shot search"):
        supernet.fit(rows, **given, engine=engine)
        ranked = _ranked(supernet, evolution, paths, rows, held_out, metric, engine or default_engine())
    count = min(retrain, len(ranked))
    study = search(
        _Retrained(trainer, [path.choices for path in ranked[:count]]),
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
    return OneShot(supernet, ranked, study)


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
    trainer: Any,
    evolution: PathEvolution,
    paths: int,
    rows: Table,
    held_out: Table,
    metric: str | None,
    engine: Engine,
) -> list[RankedPath]:
    """Paths by their metric, best first; the rows held out are encoded once."""
    metric = metric or _default(trainer)
    encoding = trainer.encoding_.for_evaluation()
    predictor = trainer._predictor(encoding)
    design: Any = FlatDesign(predictor.form)
    classes = trainer.classes_
    module: Supernet = trainer.module_
    batches = _batches(trainer, rows, engine, evolution.seed) if batch_norms(module) else []
    sign = 1.0 if direction_of(metric, "auto") == "minimize" else -1.0
    values: dict[str, float] = {}

    def evaluate(choices: dict[str, Any]) -> float:
        module.set_path(choices)
        if batches:
            recalibrate(module, batches)
        test: Any = (
            NumberEvaluation(design, predictor) if classes is None else ClassEvaluation(design, predictor, len(classes))
        )
        figures = engine.aggregate(source, test)
        if metric not in figures:
            raise OptionError("metric", metric, f"one of {', '.join(figures)}")
        values[repr(choices)] = value = float(figures[metric])
        return cost(value, sign)

    with BlockSource(held_out, encoding, passes=paths) as source:
        return [RankedPath(choices, values[repr(choices)]) for choices, _ in evolution.search(evaluate, paths)]


def _batches(trainer: Any, rows: Table, engine: Engine, seed: int) -> list[Tensor]:
    """Some of the rows that the supernet was trained on, as modules get them."""
    form = InputForm(trainer.encoding_, trainer.precision)
    with BlockSource(rows, trainer.encoding_, passes=2) as source:
        store = engine.materialise(source)
        epoch = MiniBatches(store, form.rows, batch_size=trainer.batch_size, seed=seed).epoch(0)
        steps = -(-RECALIBRATED_ROWS // trainer.batch_size)
        return [form.tensor(batch.features) for batch in islice(epoch, steps)]


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
