"""torch_evaluate and torch_predict: what trained nets say of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from sqlglot import exp

from braidwater.errors import OptionError
from braidwater.sql.functions.torch_models import restored
from braidwater.sql.names import match_columns
from braidwater.sql.place import Place
from braidwater.sql.registry import Columns, Output, Source, function

if TYPE_CHECKING:
    from braidwater.deep import Trainer


@function()
def torch_evaluate(
    place: Place, model_table: Source, test_table: Source, output_table: Output, mst_key: int | None = None
) -> None:
    """The loss and the metric of a trained net on rows: accuracy of classes, r2 of numbers.

    model_table: the table of the model.
    test_table: the table of the rows.
    output_table: the table to write into.
    mst_key: which of several models.
    """
    place.refuse_existing(output_table)
    trainer = restored(place, model_table, mst_key)
    rows = place.table(exp.select("*").from_(test_table.table), test_table.text)
    found = trainer.evaluate(rows, engine=place.engine)
    classes = trainer.classes_ is not None
    row = {
        "loss": found["log_loss"] if classes else found["rmse"] ** 2,
        "metric": found["accuracy"] if classes else found["r2"],
        "metrics_type": ["accuracy" if classes else "r2"],
        "loss_type": "cross_entropy" if classes else "mse",
    }
    place.create(
        output_table, {"loss": "float8", "metric": "float8", "metrics_type": "text[]", "loss_type": "text"}, [row]
    )


@function()
def torch_predict(
    place: Place,
    model_table: Source,
    test_table: Source,
    id_col: Columns,
    output_table: Output,
    pred_type: str = "prob",
    mst_key: int | None = None,
) -> None:
    """What a trained net says of each row: its classes with their probabilities, the likeliest first; or a number.

    model_table: the table of the model.
    test_table: the table of the rows.
    id_col: the column that tells rows apart.
    output_table: the table to write into: the id, class_value, prob and rank; of a number the id and prediction.
    pred_type: 'prob' for all classes, 'response' for the likeliest, or a number: so many of the likeliest.
    mst_key: which of several models.
    """
    place.refuse_existing(output_table)
    ids = match_columns("id_col", id_col or (), place.schema(test_table).names, test_table.text)
    if len(ids) != 1:
        raise OptionError("id_col", id_col, "one column")
    trainer = restored(place, model_table, mst_key)
    told = _told(pred_type, trainer)
    rows = place.table(exp.select("*").from_(test_table.table), test_table.text)
    columns = {"prediction": "float8"} if told == 0 else {"class_value": "text", "prob": "float8", "rank": "integer"}
    place.create(output_table, columns, [], keys=ids, of=test_table)
    for part in _predicted(trainer, rows, ids[0], told):
        place.insert(output_table, part)


def _told(pred_type: str, trainer: Trainer) -> int:
    """How many classes are told of each row; 0 for a number."""
    if trainer.classes_ is None:
        return 0
    known = {"prob": len(trainer.classes_), "response": 1}
    if pred_type not in known and not (pred_type.isdigit() and int(pred_type) > 0):
        raise OptionError("pred_type", pred_type, "'prob', 'response', or a number of classes")
    return min(known.get(pred_type) or int(pred_type), len(trainer.classes_))


def _predicted(trainer: Trainer, rows: Any, key: str, told: int) -> Iterator[pa.Table]:
    classes = trainer.classes_ or []
    wanted = [f"probability_{name}" for name in classes] if told else ["prediction"]
    for batch in trainer.predict(rows).read([key, *wanted]):
        if not told:
            yield pa.table([batch.column(0), batch.column(1)], names=[key, "prediction"])
            continue
        chances = np.column_stack([batch.column(1 + n).to_numpy(zero_copy_only=False) for n in range(len(classes))])
        best = np.argsort(-chances, axis=1, kind="stable")[:, :told]
        place = np.repeat(np.arange(len(chances)), told)
        names = np.array([str(name) for name in classes], dtype=object)
        yield pa.table(
            {
                key: batch.column(0).take(pa.array(place)),
                "class_value": pa.array(names[best.ravel()].tolist(), pa.string()),
                "prob": pa.array(np.take_along_axis(chances, best, 1).ravel()),
                "rank": pa.array(np.tile(np.arange(1, told + 1, dtype=np.int32), len(chances))),
            }
        )
