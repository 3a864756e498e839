"""The laws of an estimator over tables, beside scikit-learn's own checks: ``check(make)`` for each of `ESTIMATOR_CHECKS`.

``make()`` gives an unfitted estimator. The checks know what it learns from its `target`: a class, a number, or nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.base import clone

from braidwater.engines import LocalEngine
from braidwater.errors import (
    BraidwaterWarning,
    ColumnNotFoundError,
    EmptyTableError,
    InfiniteValueError,
    LabelError,
    NullValueError,
)
from braidwater.options import options
from braidwater.planner.base import Work
from braidwater.tables import Table, table, write_table

Make = Callable[[], Any]
FEATURES = ("x0", "x1", "x2", "colour")


def example_rows(count: int = 3000, seed: int = 3) -> pa.Table:
    """Numbers, a category, a label of each kind and a column that is no feature."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(3, count)) + np.array([[0.0], [10.0], [-3.0]])
    colour = random.integers(0, 3, count)
    signal = x[0] - 0.5 * (x[1] - 10) + 0.7 * (colour == 1)
    columns = {f"x{i}": values for i, values in enumerate(x)}
    columns |= {"colour": np.array(["red", "green", "blue"])[colour], "number": signal + random.normal(size=count)}
    columns |= {"class": np.where(signal + random.logistic(size=count) > 0, "yes", "no"), "id": np.arange(count)}
    return pa.table(columns)


def label_of(estimator: Any) -> str | None:
    """The label column of the example rows that the estimator can learn."""
    return {"class": "class", "number": "number", "none": None}[estimator.target]


def fit(estimator: Any, rows: Any, **given: Any) -> Any:
    """Fit on the features of the example rows; what the estimator has to say about convergence is not the question here."""
    with quiet():
        return estimator.fit(rows, features=list(FEATURES), label=label_of(estimator), **given)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of our own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BraidwaterWarning)
        yield


def output(estimator: Any, rows: Any) -> Table:
    """The table that the estimator makes of rows: predictions, or coordinates where it predicts nothing."""
    made: Table = estimator.predict(table(rows)) if hasattr(estimator, "predict") else estimator.transform(table(rows))
    return made


def check_the_result_does_not_depend_on_the_workers(make: Make, folder: Path) -> None:
    """Not in a single bit, whatever the number of threads and wherever blocks are kept."""
    rows = write_table(example_rows(), folder / "rows.parquet")
    found = []
    for workers, memory in ((1, "1GB"), (3, "1GB"), (2, "32MB")):
        with options(memory=memory):
            found.append(output(fit(make(), rows, engine=LocalEngine(workers)), rows).to_arrow())
    assert found[0].equals(found[1])
    assert found[0].equals(found[2])


def check_arrays_and_tables_teach_the_same(make: Make, folder: Path) -> None:
    """Numbers as an array and as a table give the same model."""
    rows = example_rows()
    names = list(FEATURES[:3])
    features = np.column_stack([rows.column(name).to_numpy() for name in names])
    label = label_of(make())
    given = () if label is None else (np.array(rows.column(label).to_pylist()),)
    with quiet():
        by_array = make().fit(features, *given)
        by_table = make().fit(rows, features=names, label=label)
    one, two = output(by_array, rows).to_arrow(), output(by_table, rows).to_arrow()
    for name in set(two.column_names) - set(rows.column_names):
        a, b = (np.array(t.column(name).to_pylist()) for t in (one, two))
        assert np.array_equal(a, b) if a.dtype.kind in "OU" else np.allclose(a, b, rtol=1e-6, atol=1e-8)


def check_output_keeps_the_columns_and_the_order_of_the_rows(make: Make, folder: Path) -> None:
    """All columns of the table come first, unchanged; nothing runs until the table is read."""
    rows = example_rows()
    made = output(fit(make(), rows), rows).to_arrow()
    assert made.select(rows.column_names).equals(rows)
    assert made.num_columns > rows.num_columns
    assert sum(column.null_count for column in made.columns) == 0


def check_a_saved_model_is_the_same_model(make: Make, folder: Path) -> None:
    """It predicts the same, encoder included, and knows its parameters."""
    rows = example_rows()
    model = fit(make(), rows)
    model.save(folder / "model")
    again = type(model).load(folder / "model")
    assert output(again, rows).to_arrow().equals(output(model, rows).to_arrow())
    assert again.get_params() == model.get_params()


def check_a_clone_knows_the_parameters_and_nothing_else(make: Make, folder: Path) -> None:
    """scikit-learn's way of making a fresh one."""
    model = fit(make(), example_rows())
    assert clone(model).get_params() == make().get_params()
    assert not [name for name in vars(clone(model)) if name.endswith("_")]


def check_nulls_are_refused_with_column_and_count(make: Make, folder: Path) -> None:
    """Unless a policy says otherwise."""
    rows = example_rows()
    values = rows.column("x1").to_pylist()
    values[5] = values[50] = None
    rows = rows.set_column(1, "x1", pa.array(values))
    with pytest.raises(NullValueError, match=r"'x1' has 2 NULLs in 3000 rows"):
        fit(make(), rows)
    dropping = make().set_params(nulls="drop")
    kept = rows.filter(rows.column("x1").is_valid())
    assert output(fit(dropping, rows), kept).to_arrow().equals(output(fit(make(), kept), kept).to_arrow())


def check_infinities_are_named(make: Make, folder: Path) -> None:
    """The column, and how many."""
    rows = example_rows()
    values = rows.column("x2").to_pylist()
    values[7] = float("inf")
    with pytest.raises(InfiniteValueError, match="'x2' has 1 infinities"):
        fit(make(), rows.set_column(2, "x2", pa.array(values)))


def check_a_wrong_column_is_named_with_a_suggestion(make: Make, folder: Path) -> None:
    """For features, and when predicting."""
    rows = example_rows()
    with pytest.raises(ColumnNotFoundError, match="Did you mean 'colour'"):
        make().fit(rows, features=["x0", "color"], label=label_of(make()))
    model = fit(make(), rows)
    with pytest.raises(ColumnNotFoundError, match="'x1'"):
        output(model, rows.drop_columns(["x1"])).to_arrow()


def check_a_table_without_rows_is_refused(make: Make, folder: Path) -> None:
    """There is nothing to learn from."""
    with pytest.raises(EmptyTableError):
        fit(make(), example_rows().slice(0, 0))


def check_a_table_without_rows_can_be_predicted(make: Make, folder: Path) -> None:
    """The answer has no rows, and its columns."""
    made = output(fit(make(), example_rows()), example_rows().slice(0, 0))
    assert made.to_arrow().num_rows == 0
    assert made.to_arrow().schema == made.schema


def check_a_constant_column_does_no_harm(make: Make, folder: Path) -> None:
    """It may be warned about; predictions stay finite."""
    rows = example_rows()
    rows = rows.set_column(0, "x0", pa.array(np.full(rows.num_rows, 5.0)))
    made = output(fit(make(), rows), rows).to_arrow()
    for name in set(made.column_names) - set(rows.column_names):
        values = np.array(made.column(name).to_pylist())
        assert values.dtype.kind in "OU" or np.isfinite(values).all()


def check_one_class_is_refused(make: Make, folder: Path) -> None:
    """Nothing can be learnt from it."""
    if make().target != "class":
        return
    rows = example_rows()
    place = rows.column_names.index("class")
    with pytest.raises(LabelError, match=r"one class"):
        fit(make(), rows.set_column(place, "class", pa.array(["yes"] * rows.num_rows)))


def check_the_planner_learns_what_it_is_in_for(make: Make, folder: Path) -> None:
    """Passes, columns and figures, and the plan of a fit stays with the model."""
    rows = table(example_rows())
    model = fit(make(), rows)
    work = make().work(rows, model.encoding_)
    assert isinstance(work, Work)
    assert work.passes >= 1
    assert set(FEATURES) <= set(work.read_columns)
    assert work.row_bytes == model.encoding_.block_schema.row_bytes
    assert "estimated" in str(model.plan_)
    assert "measured" in str(model.plan_)


ESTIMATOR_CHECKS = (
    check_the_result_does_not_depend_on_the_workers,
    check_arrays_and_tables_teach_the_same,
    check_output_keeps_the_columns_and_the_order_of_the_rows,
    check_a_saved_model_is_the_same_model,
    check_a_clone_knows_the_parameters_and_nothing_else,
    check_nulls_are_refused_with_column_and_count,
    check_infinities_are_named,
    check_a_wrong_column_is_named_with_a_suggestion,
    check_a_table_without_rows_is_refused,
    check_a_table_without_rows_can_be_predicted,
    check_a_constant_column_does_no_harm,
    check_one_class_is_refused,
    check_the_planner_learns_what_it_is_in_for,
)
