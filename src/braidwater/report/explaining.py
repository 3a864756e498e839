"""What a training would do and cost, before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from braidwater.errors import OptionError, UnsupportedError
from braidwater.planner import Plan, plan_table


def explain(
    model: Any,
    table: Any,
    *,
    label: str | None = None,
    features: Any = None,
    exclude: Sequence[str] = (),
    **wishes: Any,
) -> Plan:
    """The plan of ``model.fit(table, label=…)``: what it would do, in seconds, bytes and choices. Nothing is trained.

    `model` is an estimator or a trainer, `table` what `braidwater.table` takes. `wishes` go to `braidwater.planner.plan`:
    ``workers``, ``strategy``, ``cache``, ``kernel``, ``memory``. The columns are looked at as far as their encoders need it
    (categories, means): one query where the rows lie, and none for plain numbers.

    Raises what `fit` would raise for a wrong column or type, and `BudgetError` where no plan fits.
    """
    from braidwater.encoding import Encoding
    from braidwater.tables import table as open_table

    if not hasattr(model, "work"):
        raise UnsupportedError(f"A {type(model).__name__} cannot be explained: it has no method work(table, encoding).")
    rows = open_table(table)
    target = target_of(model)
    if target != "none" and label is None:
        raise OptionError("label", None, "the name of the column to learn")
    wishes = {**_own_wishes(model), **{name: value for name, value in wishes.items() if value is not None}}
    if hasattr(model, "encode"):  # a trainer chooses its own encoders
        plan: Plan = model.explain(rows, label=label, features=features, exclude=exclude, **wishes)
        return plan
    declared = Encoding(
        features=features,
        exclude=list(exclude) if label is None or target != "none" else [*exclude, label],
        label=label if target != "none" else None,
        label_kind="class" if target == "class" else "number",
        nulls=getattr(model, "nulls", "refuse"),
        coding=getattr(model, "coding", "treatment"),
    )
    return plan_table(rows, model.work(rows, declared.fit(rows)), **wishes)


def _own_wishes(model: Any) -> dict[str, Any]:
    """What the model itself was told: its strategy and workers."""
    strategy = getattr(model, "strategy", None)
    if strategy is None:
        return {}
    if isinstance(strategy, str):
        workers = getattr(model, "workers", None)
        return {"strategy": strategy} | ({} if workers is None else {"workers": workers})
    return {"strategy": strategy.name, "workers": strategy.workers}


def target_of(model: Any) -> str:
    """What a model learns to predict: ``class``, ``number`` or ``none``."""
    found: str = getattr(model, "target", "class")
    return found
