"""Nets in tables: architectures that can be trained, and trained models as JSON beside weights in safetensors. No pickles."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from braidwater.errors import DataError, OptionError, TableError, UnsafeModelError, UnsupportedError
from braidwater.sql.names import Name
from braidwater.sql.place import Place, arrow_rows
from braidwater.sql.registry import Output, Source, function

if TYPE_CHECKING:
    import torch

    from braidwater.deep import Trainer

TRUSTED = "BRAIDWATER_TRUSTED_PACKAGES"  # whose modules a table may name, separated by commas; braidwater's own always
ARCHITECTURES = {
    "model_id": "integer", "module": "text", "module_arguments": "text", "name": "text", "description": "text",
}  # fmt: skip
MODEL = {"model_weights": "bytea", "model_arch": "text"}


@function()
def load_torch_model(
    place: Place,
    model_arch_table: Output,
    module: str,
    module_arguments: str = "{}",
    name: str | None = None,
    description: str | None = None,
) -> str:
    """Add a net to a table of architectures, which is made where it is not there.

    model_arch_table: the table of architectures.
    module: the import path of a torch module, 'package.module:Class', which is called with the width of a row and the number of
        classes (1 for a number). Packages other than braidwater must be named in BRAIDWATER_TRUSTED_PACKAGES.
    module_arguments: more arguments for it, as a JSON object, such as '{"hidden": [64, 32]}'.
    name: a name of your own.
    description: a text of your own.
    """
    Architecture(module, _object("module_arguments", module_arguments)).factory()
    if place.fields(model_arch_table) is None:
        place.create(model_arch_table, ARCHITECTURES, [])
    ids = place.select(exp.select("model_id").from_(model_arch_table.table)).column("model_id").to_pylist()
    row = {
        "model_id": max(ids, default=0) + 1, "module": module, "module_arguments": module_arguments, "name": name,
        "description": description,
    }  # fmt: skip
    place.insert(model_arch_table, arrow_rows([row], ARCHITECTURES))
    return f"model_id {row['model_id']} of {model_arch_table.text}"


@function()
def delete_torch_model(place: Place, model_arch_table: Source, model_id: int) -> None:
    """Remove a net from a table of architectures.

    model_arch_table: the table of architectures.
    model_id: the number of the net.
    """
    architecture(place, model_arch_table, model_id)
    place.run(exp.delete(model_arch_table.table).where(_is("model_id", model_id)))


@dataclass(frozen=True)
class Architecture:
    """The import path of a module and arguments for it."""

    module: str
    arguments: Mapping[str, Any]

    def factory(self) -> Callable[..., torch.nn.Module]:
        """The class of the module. A path in a table is somebody else's text: only trusted packages are imported, and only a
        module's class is called."""
        import torch

        from braidwater.deep.building import import_factory

        try:
            found = import_factory(self.module, trusted_packages())
        except UnsafeModelError as error:
            raise UnsupportedError(
                f"{self.module!r} is not imported on its word. If you trust its package, name it in the environment variable "
                f"{TRUSTED} of the process that runs this."
            ) from error
        if not (isinstance(found, type) and issubclass(found, torch.nn.Module)):
            raise OptionError(
                "module", self.module, "the import path of a class of torch modules, 'package.module:Class'"
            )
        return found


def trusted_packages() -> list[str]:
    """The packages that the owner of this process trusts."""
    return [name.strip() for name in os.environ.get(TRUSTED, "").split(",") if name.strip()]


def architecture(place: Place, table: Name, model_id: int) -> Architecture:
    """The net with this number."""
    place.schema(table)
    query = exp.select("module", "module_arguments").from_(table.table).where(_is("model_id", model_id))
    rows = place.select(query).to_pylist()
    if not rows:
        raise DataError(f"Table {table.text} has no model with model_id {model_id}.")
    return Architecture(rows[0]["module"], _object("module_arguments", rows[0]["module_arguments"] or "{}"))


def stored(trainer: Trainer, net: Architecture) -> dict[str, Any]:
    """A trained model as the columns of a table."""
    trainer.module, trainer.module_arguments = net.module, dict(net.arguments)
    with TemporaryDirectory(prefix="braidwater-model-") as folder:
        path = trainer.save(folder)
        document = (path / "model.json").read_text()
        weights = (path / json.loads(document)["weights"]["file"]).read_bytes()
    return {"model_weights": weights, "model_arch": document}


def restored(place: Place, table: Name, mst_key: int | None = None) -> Trainer:
    """The trained model in a table, the one with this key where it has several."""
    from braidwater.deep import Trainer

    keyed = "mst_key" in place.schema(table).names
    if keyed and mst_key is None:
        raise OptionError("mst_key", None, f"given: {table.text} has a model for each mst_key")
    if mst_key is not None and not keyed:
        raise OptionError("mst_key", mst_key, f"NULL: {table.text} has one model")
    query = exp.select(*MODEL).from_(table.table)
    rows = place.select(query.where(_is("mst_key", mst_key)) if mst_key is not None else query).to_pylist()
    if len(rows) != 1:
        raise TableError(f"Table {table.text} has {len(rows)} models{'' if mst_key is None else f' of key {mst_key}'}.")
    with TemporaryDirectory(prefix="braidwater-model-") as folder:
        record = _object("model_arch", rows[0]["model_arch"])
        name = Path(str(record.get("weights", {}).get("file", "weights.safetensors"))).name
        (Path(folder) / "model.json").write_text(rows[0]["model_arch"])
        (Path(folder) / name).write_bytes(rows[0]["model_weights"])
        return Trainer.load(folder, trust=trusted_packages())


def parse_keywords(argument: str, text: str, allowed: Mapping[str, Any]) -> dict[str, Any]:
    """The values of ``"loss='mse', metrics=['mae']"``, as a call would write them; literals only.

    >>> parse_keywords("fit_params", "batch_size=32, epochs=3", {"batch_size": 128, "epochs": 1, "shuffle": True})
    {'batch_size': 32, 'epochs': 3, 'shuffle': True}
    """
    must_be = f"name=value pairs of {', '.join(allowed)}, such as batch_size=32"
    try:
        tree = ast.parse(f"f({text.strip()})", mode="eval").body
        assert isinstance(tree, ast.Call)
        if tree.args or any(one.arg is None for one in tree.keywords):
            raise OptionError(argument, text, must_be)
        given = {str(one.arg): ast.literal_eval(one.value) for one in tree.keywords}
    except (SyntaxError, AssertionError, ValueError) as error:
        if isinstance(error, OptionError):
            raise
        raise OptionError(argument, text, must_be) from error
    for name in given:
        if name not in allowed:
            near = get_close_matches(name, allowed, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise OptionError(argument, text, f"{must_be}: {name!r} is not known{hint}")
    return {**allowed, **given}


def _object(argument: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise OptionError(argument, text, "a JSON object") from error
    if not isinstance(found, dict):
        raise OptionError(argument, text, "a JSON object")
    return found


def _is(column: str, value: int) -> exp.Expression:
    return exp.EQ(this=exp.column(column), expression=exp.Literal.number(value))
