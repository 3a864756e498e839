"""What models hop over: the blocks of a table, dealt to workers, and what all models must have in common to share them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from braidwater.blocks import BlockSource
from braidwater.blocks.mini_batches import MiniBatches
from braidwater.blocks.source import CacheChoice
from braidwater.blocks.store import BlockStore
from braidwater.deep.inputs import InputForm
from braidwater.encoding import FittedEncoding
from braidwater.engines import Engine
from braidwater.errors import OptionError, UnsupportedError, UserError
from braidwater.model_selection.hopper.partitions import Partition, PartitionedSource, partitions_of
from braidwater.tables import Table

_ROLES = ("label", "features", "exclude", "weight")


@dataclass(frozen=True)
class Ground:
    """The rows that models hop over: the blocks of all, of which a worker reads its own partition, and those held out.

    They are in files that worker processes find, which travel as their paths, or stay where the rows lie (`BlockStore.here` is
    False). `table` is the name of what they come from, `settings` those of a trainer that decide on the numbers it learns from.
    """

    table: str
    encoding: FittedEncoding
    settings: dict[str, Any]
    store: BlockStore
    partitions: int
    validation: BlockStore | None = None
    owners: int = 0  # workers, each of whom has every `owners`-th partition; 0: one each
    _held: dict[tuple[int, str], tuple[Partition, MiniBatches]] = field(default_factory=dict, compare=False, repr=False)

    def rows(self, partition: int, form: InputForm) -> tuple[Partition, MiniBatches]:
        """A partition and its mini-batches, held for the next model that comes by."""
        key = partition, form.rows.dtype
        if key not in self._held:
            part = partitions_of(self.store, self.partitions)[partition]
            self._held[key] = part, MiniBatches(part, form.rows, batch_size=1)
        return self._held[key]

    @property
    def workers(self) -> int:
        """How many workers the partitions belong to."""
        return self.owners or self.partitions

    def owned(self, worker: int) -> range:
        """The partitions of a worker: nobody else reads them."""
        return range(worker, self.partitions, self.workers)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of each partition."""
        return tuple(part.rows for part in partitions_of(self.store, self.partitions))


def make_ground(
    trainer: Any,
    rows: Table,
    held_out: Table | None,
    roles: Mapping[str, Any],
    partitions: int,
    engine: Engine,
    stack: ExitStack,
    workers: int | None = None,
) -> Ground:
    """The blocks of both tables as `trainer` reads them, while `stack` is open: in files, or where the rows stay.

    Each of `workers` has as many of the `partitions` as the others, within one; by default there are as many of either.
    """
    workers = workers or partitions
    if partitions < workers:
        raise OptionError("partitions", partitions, f"at least {workers}: every worker owns one or more")
    stays = engine.stays(rows)
    if stays and partitions != workers:
        raise OptionError(
            "partitions", partitions, f"{workers}: where rows stay each worker owns the part that lies with it"
        )
    if stays and partitions > engine.workers:
        raise OptionError(
            "workers", partitions, f"at most {engine.workers}, the workers of the engine where the rows stay"
        )
    encoding = trainer.encode(rows, **{name: value for name, value in roles.items() if name in _ROLES})
    source = stack.enter_context(PartitionedSource(rows, encoding, partitions=partitions, stays=stays))
    store = engine.place(source)
    partitions_of(store, partitions)  # refuses a table of too few rows before a worker starts
    validation = None
    if held_out is not None:
        cache: CacheChoice = "memory" if stays else "disk"
        checked = stack.enter_context(BlockSource(held_out, encoding.for_evaluation(), passes=2, cache=cache))
        validation = engine.place(checked) if stays else engine.materialise(checked)
        if validation.here == stays:
            raise UnsupportedError(
                "The rows held out lie elsewhere than those to train on. Give a share of the rows: 0.2."
            )
    return Ground(rows.name, encoding, numbers_of(trainer, encoding), store, partitions, validation, workers)


def numbers_of(trainer: Any, encoding: FittedEncoding) -> dict[str, Any]:
    """The settings of a trainer that decide on what blocks hold."""
    loss = trainer.loss_of(encoding)
    return {"nulls": trainer.nulls, "standardise": trainer.standardise, "the kind of label": loss.target}


def require_same_numbers(trainer: Any, ground: Ground, name: str = "A model") -> None:
    """Refuse a trainer that would learn from other numbers than the blocks hold."""
    own = numbers_of(trainer, ground.encoding)
    for setting, value in ground.settings.items():
        if own[setting] != value:
            raise UserError(
                f"{name} does not learn from the same numbers as the others: {setting} is {own[setting]!r}, theirs {value!r}. "
                "Models that hop share the blocks of the table: train this one apart, or give it the same setting."
            )


def refuse_other_ways(trainer: Any) -> None:
    """Settings that say otherwise how rows are dealt out, or where a training starts again."""
    strategy = trainer.strategy if isinstance(trainer.strategy, str) else trainer.strategy.name
    told = {
        f"strategy={strategy!r}": strategy not in ("auto", "single"),
        "shuffle=True": trainer.shuffle,
        f"max_rollbacks={trainer.max_rollbacks}": trainer.max_rollbacks > 0,
        f"profile={trainer.profile!r}": trainer.profile is not None,
    }
    for setting, wrong in told.items():
        if wrong:
            raise UnsupportedError(
                f"A model with {setting} cannot hop from worker to worker; leave it out, or train it by itself: fit(table)."
            )
