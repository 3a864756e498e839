"""Nets in tables: architectures that can be trained, and trained models as JSON beside weights in safetensors. No pickles."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from braidwater.errors import DataError, OptionError, TableError, UnsafeModelError, UnsupportedError
from braidwater.sql.names import Name
from braidwater.sql.place import Place, arrow_rows
from braidwater.sql.registry import Binary, Output, Source, function

if TYPE_CHECKING:
    import torch

    from braidwater.deep import Trainer
    from braidwater.deep.warm_start import WarmOptimizer

TRUSTED = "BRAIDWATER_TRUSTED_PACKAGES"  # whose modules a table may name, separated by commas; braidwater's own always
ARCHITECTURES = {
    "model_id": "integer", "module": "text", "module_arguments": "text", "name": "text", "description": "text",
    "program": "text", "program_weights": "bytea",
}  # fmt: skip
MODEL = {"model_weights": "bytea", "model_arch": "text", "optimizer_state": "bytea", "program": "text"}


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
    about = {"name": name, "description": description}
    return _added(place, model_arch_table, about | {"module": module, "module_arguments": module_arguments})


@function()
def load_torch_program(
    place: Place,
    model_arch_table: Output,
    program: str,
    program_weights: Binary,
    name: str | None = None,
    description: str | None = None,
) -> str:
    """Add a net to a table of architectures that is a graph and weights, as braidwater.deep.programs.export_program makes them of
    any module; nothing of it is code, and training begins with these weights.

    model_arch_table: the table of architectures.
    program: the graph, JSON.
    program_weights: the weights, safetensors.
    name: a name of your own.
    description: a text of your own.
    """
    from braidwater.deep.programs import Program

    Program(program, program_weights)
    about = {"name": name, "description": description, "module_arguments": "{}"}
    return _added(place, model_arch_table, about | {"program": program, "program_weights": program_weights})


def _added(place: Place, table: Name, row: Mapping[str, Any]) -> str:
    if not place.exists(table):
        place.create(table, ARCHITECTURES, [])
    names = place.schema(table).names
    missing = [column for column in row if row[column] is not None and column not in names]
    if missing:
        raise TableError(f"Table {table.text} has no column {missing[0]}: give a new table of architectures.")
    ids = place.select(exp.select("model_id").from_(table.table)).column("model_id").to_pylist()
    known = {column: kind for column, kind in ARCHITECTURES.items() if column in names}
    number = max(ids, default=0) + 1
    place.insert(table, arrow_rows([{**row, "model_id": number}], known))
    return f"model_id {number} of {table.text}"


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
    """The import path of a module and arguments for it; or a program with its weights."""

    module: str | None
    arguments: Mapping[str, Any]
    program: str | None = None
    weights: bytes = b""

    def factory(self) -> Callable[..., torch.nn.Module]:
        """What makes the module."""
        if self.program is not None:
            from braidwater.deep.programs import ProgramFactory

            return ProgramFactory(self.program, self.weights)
        return self._imported(str(self.module))

    def _imported(self, path: str) -> Callable[..., torch.nn.Module]:
        """The class of the module. A path in a table is somebody else's text: only trusted packages are imported, and only a
        module's class is called."""
        import torch

        from braidwater.deep.building import import_factory

        try:
            found = import_factory(path, trusted_packages())
        except UnsafeModelError as error:
            raise UnsupportedError(
                f"{path!r} is not imported on its word. If you trust its package, name it in the environment variable "
                f"{TRUSTED} of the process that runs this."
            ) from error
        if not (isinstance(found, type) and issubclass(found, torch.nn.Module)):
            raise OptionError("module", path, "the import path of a class of torch modules, 'package.module:Class'")
        return found


def trusted_packages() -> list[str]:
    """The packages that the owner of this process trusts."""
    return [name.strip() for name in os.environ.get(TRUSTED, "").split(",") if name.strip()]


def architecture(place: Place, table: Name, model_id: int) -> Architecture:
    """The net with this number."""
    wanted = ("module", "module_arguments", "program", "program_weights")  # the last two are not in older tables
    names = [column for column in wanted if column in place.schema(table).names]
    rows = place.select(exp.select(*names).from_(table.table).where(_is("model_id", model_id))).to_pylist()
    if not rows:
        raise DataError(f"Table {table.text} has no model with model_id {model_id}.")
    found = rows[0]
    arguments = _object("module_arguments", found["module_arguments"] or "{}")
    return Architecture(found["module"], arguments, found.get("program"), found.get("program_weights") or b"")


def stored(trainer: Trainer, net: Architecture, optimizer: bytes | None) -> dict[str, Any]:
    """A trained model and the state of its optimizer as the columns of a table."""
    from braidwater.deep.programs import ProgramFactory

    trainer.module = net.module or ProgramFactory(str(net.program), net.weights)
    trainer.module_arguments = dict(net.arguments)
    with TemporaryDirectory(prefix="braidwater-model-") as folder:
        path = trainer.save(folder)
        document = (path / "model.json").read_text()
        weights = (path / json.loads(document)["weights"]["file"]).read_bytes()
    return {"model_weights": weights, "model_arch": document, "optimizer_state": optimizer, "program": net.program}


def restored(place: Place, table: Name, mst_key: int | None = None) -> Trainer:
    """The trained model in a table, the one with this key where it has several."""
    from braidwater.deep import Trainer
    from braidwater.deep.programs import ProgramFactory

    known = place.schema(table).names
    row = _row(place, table, mst_key, ["model_weights", "model_arch", *(["program"] if "program" in known else [])])
    with TemporaryDirectory(prefix="braidwater-model-") as folder:
        record = _object("model_arch", row["model_arch"])
        name = Path(str(record.get("weights", {}).get("file", "weights.safetensors"))).name
        (Path(folder) / "model.json").write_text(row["model_arch"])
        (Path(folder) / name).write_bytes(row["model_weights"])
        program = row.get("program")
        if program is None:
            return Trainer.load(folder, trust=trusted_packages())
        return Trainer.load(folder, module=ProgramFactory(program, row["model_weights"]))


@dataclass(frozen=True)
class Before:
    """What a model goes on from: weights, and an optimizer where one was kept."""

    weights: Mapping[str, Any]
    optimizer: WarmOptimizer | None


def before_of(place: Place, table: Name, mst_key: int | None = None) -> Before:
    """The weights and the optimizer of the trained model in a table."""
    from braidwater.deep.warm_start import from_file

    weights = restored(place, table, mst_key).module_.state_dict()
    kept = None
    if "optimizer_state" in place.schema(table).names:  # not in tables of older versions
        kept = _row(place, table, mst_key, ["optimizer_state"])["optimizer_state"]
    if kept is None:
        return Before(weights, None)
    with TemporaryDirectory(prefix="braidwater-model-") as folder:
        path = Path(folder) / "optimizer.safetensors"
        path.write_bytes(kept)
        return Before(weights, from_file(path))


def _row(place: Place, table: Name, mst_key: int | None, columns: Sequence[str]) -> dict[str, Any]:
    keyed = "mst_key" in place.schema(table).names
    if keyed and mst_key is None:
        raise OptionError("mst_key", None, f"given: {table.text} has a model for each mst_key")
    if mst_key is not None and not keyed:
        raise OptionError("mst_key", mst_key, f"NULL: {table.text} has one model")
    query = exp.select(*columns).from_(table.table)
    rows = place.select(query.where(_is("mst_key", mst_key)) if mst_key is not None else query).to_pylist()
    if len(rows) != 1:
        raise TableError(f"Table {table.text} has {len(rows)} models{'' if mst_key is None else f' of key {mst_key}'}.")
    return dict(rows[0])


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
