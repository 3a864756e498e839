"""A program as one Python function of numpy calls: nothing to look up and nothing to dispatch, turn after turn of a loop.

The function runs the kernels of the program's instructions, those of common operators written out, and gives the same digits. Its
text holds names of our own only; variables and numbers of a script come in as constants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from typing import Any, TypeAlias

import numpy as np

from braidwater.dml.context import Context
from braidwater.dml.hops import Facts, Hop
from braidwater.dml.operators.numbers import ARITHMETIC, NUMBERS, arithmetic, kind_of_result
from braidwater.dml.operators.products import product
from braidwater.dml.plan.cost import CELLWISE, cells, memory
from braidwater.dml.runtime.block_kernels import MAPS, NARROW
from braidwater.dml.runtime.described import DOUBLE, Condition, Described, Result, described
from braidwater.dml.runtime.kernels import ALL, MANY_FLOPS, ROWS, flops
from braidwater.dml.runtime.pool import SMALLEST, pool_of
from braidwater.dml.runtime.program import Instruction, Program
from braidwater.dml.runtime.rooms import Rooms
from braidwater.errors import DMLError

Function: TypeAlias = Callable[[dict[str, Any], Context], bool]

INFIX = {f"number {op}": op for op in ("+", "-", "*", "<", "<=", ">", ">=", "==", "!=")}
DOUBLES = frozenset({"+", "-", "*"})
MADE_DOUBLE = frozenset({  # of doubles they make doubles without being given room for them
    "+", "-", "*", "/", "neg", "exp", "log", "sqrt", "abs", "floor", "ceil", "sign", "sin", "cos", "tan", "tanh", "sinh", "cosh",
    "asin", "acos", "atan", "%%",
})  # fmt: skip
READS_LATE = frozenset({"ifelse"})  # kernels that read an input after they began to write


def generated(
    program: Program,
    order: Sequence[Hop],
    given: Mapping[str, Described],
    conditions: Iterable[Condition],
    results: Sequence[Result],
    dead: Iterable[str],
) -> Function:
    """``run(variables, context)``: whether `variables` are as `given` and the conditions hold. Then they have the results, and
    none of `dead` any more. `order` are the operators of the block that the program was made of.

    Cost: 20 us an operator, once.
    """
    writer = _Writer(order, given, _kept(program))
    writer.find(dict.fromkeys(order[place].attributes["name"] for place in program.leaves if order[place].op == "leaf"))
    for condition in conditions:
        writer.condition(condition)
    for slot, place in enumerate(program.leaves):
        writer.leaf(slot, order[place])
    for slot, value in program.constants:
        writer.number(slot, value)
    for instruction in program.instructions:
        writer.instruction(instruction)
    for result, slot in zip(results, program.roots, strict=True):
        writer.result(result, slot)
    writer.end(dead)
    return writer.function()


class _Writer:
    """Writes the function line by line. A slot of the program is a local variable, or a number's text."""

    def __init__(self, order: Sequence[Hop], given: Mapping[str, Described], kept: set[int]) -> None:
        self._order = order
        self._given = given
        self._lines: list[str] = []
        self._names: dict[str, Any] = {}
        self._variables: dict[str, str] = {}
        self._text: dict[int, str] = {}
        self._kind: dict[int, Any] = {}  # np.ndarray, float, int, bool; None: not known
        self._by_rows: set[int] = set()  # slots with a matrix that surely lies row by row
        self._rooms = Rooms(kept, self._text)

    def line(self, *lines: str) -> None:
        self._lines += lines

    def constant(self, value: Any) -> str:
        """The name under which the function finds a value."""
        if type(value) in (int, bool):
            return repr(value) if value is True or value is False or value >= 0 else f"({value})"
        name = f"c{len(self._names)}"
        self._names[name] = value
        return name

    def known(self, function: Any, name: str) -> str:
        self._names[name] = function
        return name

    def find(self, names: Iterable[str]) -> None:
        """Take the variables, and be sure that they are what they were."""
        for name in dict.fromkeys([*names, *self._given]):
            self._variables[name] = f"x{len(self._variables)}"
        if not self._variables:
            return
        self.line("try:", *(f"    {local} = variables[{name!r}]" for name, local in self._variables.items()),
                  "except KeyError:", "    return False")  # fmt: skip
        asked = [self._asked(local, self._given[name]) for name, local in self._variables.items()]
        self.line(f"if not ({' and '.join(asked)}):", "    return False")

    def _asked(self, local: str, description: Described) -> str:
        kind, shape, more = description
        text = f"type({local}) is {self.constant(kind)}"
        if shape is None:
            return text
        text += f" and {local}.shape == {shape}"
        if kind is np.ndarray:
            return f"{text} and {local}.strides == {more} and {local}.dtype is {self.known(DOUBLE, 'double')}"
        return f"{text} and {self.known(described, 'described')}({local})[2] == {more}"

    def condition(self, condition: Condition) -> None:
        self.line(f"if {self._number(condition.hop)[0]} != {self.constant(condition.value)}:", "    return False")

    def _number(self, hop: Hop) -> tuple[str, type]:
        """The text of a number that follows from variables."""
        if hop.op == "leaf":
            name = hop.attributes["name"]
            return self._variables[name], self._given[name][0]
        if hop.op == "literal":
            return self.constant(hop.attributes["value"]), type(hop.attributes["value"])
        inputs = [self._number(each) for each in hop.inputs]
        return self._scalar(hop, [text for text, _ in inputs], [kind for _, kind in inputs])

    def leaf(self, slot: int, hop: Hop) -> None:
        if hop.op == "literal":
            self.number(slot, hop.attributes["value"])
            return
        name = hop.attributes["name"]
        self._text[slot], (self._kind[slot], shape, more) = self._variables[name], self._given[name]
        if self._kind[slot] is np.ndarray and more == (8 * shape[1], 8):
            self._by_rows.add(slot)

    def number(self, slot: int, value: Any) -> None:
        self._text[slot], self._kind[slot] = self.constant(value), type(value)

    def instruction(self, instruction: Instruction) -> None:
        """The instruction's kernel written out, or a call of it."""
        hop, inputs = instruction.hops[0], instruction.inputs
        kinds = [self._kind[slot] for slot in inputs]
        texts = [self._text[slot] for slot in inputs]
        if instruction.scan is not None:
            self._call(instruction)
        elif not hop.facts.is_matrix and inputs and all(kind in (float, int, bool) for kind in kinds):
            text, kind = self._scalar(hop, texts, kinds)
            self._set(instruction.outputs[0], text, kind)
        elif np.ndarray in kinds and all(kind in (np.ndarray, float, int) for kind in kinds):
            self._dense(instruction, hop, texts, kinds)
        else:
            self._call(instruction)
            if hop.op in PRODUCTS and np.ndarray in kinds:  # the other matrix is sparse
                self._kind[instruction.outputs[0]] = np.ndarray
        self._keep(instruction)
        self._rooms.release(instruction.frees)

    def _keep(self, instruction: Instruction) -> None:
        """What is large enough to be counted goes through the pool."""
        for slot, hop in zip(instruction.outputs, _made(instruction), strict=True):
            if hop.facts.is_matrix and hop.op != "t" and memory(hop.facts) >= SMALLEST:
                self.line(f"v{slot} = {self.known(pool_of, 'pool_of')}(context).keep(v{slot})")

    def _scalar(self, hop: Hop, texts: list[str], kinds: list[Any]) -> tuple[str, type]:
        """An operator of numbers."""
        if hop.op in INFIX:
            return f"({f' {INFIX[hop.op]} '.join(texts)})", bool if hop.op[7:] not in DOUBLES else int
        if hop.op in DOUBLES and float in kinds and bool not in kinds:
            return f"({f' {hop.op} '.join(texts)})", float
        if hop.op == "/" and bool not in kinds:
            a, b = texts
            by_zero = f"float({self.known(np.true_divide, 'true_divide')}({a}, {b}))"
            return f"({a} / {b} if {b} else {by_zero})", float
        if hop.op == "neg" and kinds == [float]:
            return f"(-{texts[0]})", float
        if len(texts) == 2 and hop.op.removeprefix("number ") in ARITHMETIC:
            op = hop.op.removeprefix("number ")
            kind = kind_of_result(op, *kinds) if hop.op in NUMBERS else float
            return f"{self.known(arithmetic, 'arithmetic')}({op!r}, {', '.join(texts)})", kind
        kernel = self.constant(ALL[hop.op].kernel)
        return f"{kernel}(({', '.join(texts)},), {self.constant(hop.attributes)})", float

    def _dense(self, instruction: Instruction, hop: Hop, texts: list[str], kinds: list[Any]) -> None:
        """An operator of dense matrices."""
        slot = instruction.outputs[0]
        if hop.op in CELLWISE and hop.op in MAPS and hop.facts.is_matrix and hop.facts.known:
            self._cellwise(instruction, hop, texts)
        elif hop.op in ROWS and 1 < (hop.inputs[0].facts.cols or 0) <= NARROW:
            room = self._room(slot, hop, []) or self._fresh(hop)
            self.line(f"{self.constant(MAPS[hop.op])}({texts[0]}, {room})")
            self._set(slot, room, np.ndarray, hop.facts)
        elif hop.op in PRODUCTS and flops(hop) <= MANY_FLOPS:
            self._product(slot, PRODUCTS[hop.op](*texts), hop)
        elif hop.op == "t":
            self._rooms.seen(instruction.inputs)
            self._set(slot, f"{texts[0]}.T", np.ndarray)
        elif hop.op in SUMS and (hop.op != "sumprod" or self._lie_by_rows(instruction)):
            self._names |= {"add_reduce": np.add.reduce, "vdot": np.vdot}
            self._set(slot, SUMS[hop.op](*texts), np.ndarray if hop.facts.is_matrix else float)
        else:
            self._call(instruction)

    def _product(self, slot: int, factors: tuple[str, str], hop: Hop) -> None:
        room = self._room(slot, hop, [])
        if room is None:
            self._set(slot, " @ ".join(factors), np.ndarray, hop.facts)
        else:
            self._set(slot, f"{self.known(np.matmul, 'matmul')}({', '.join(factors)}, {room})", np.ndarray, hop.facts)
        if hop.op != "tsmm":
            right = hop.inputs[-1].facts
            checked = f"v{slot}" if cells(hop.facts) < cells(right) else factors[1].removesuffix(".T")
            self._names |= {"isfinite": isfinite, "vdot": np.vdot, "product": product}
            self.line(f"if not isfinite(vdot({checked}, {checked})): v{slot} = product({', '.join(factors)})")

    def _cellwise(self, instruction: Instruction, hop: Hop, texts: list[str]) -> None:
        slot = instruction.outputs[0]
        dying = [] if hop.op in READS_LATE else [each for each in instruction.inputs if each in instruction.frees]
        room = self._room(slot, hop, dying)
        kernel, fresh_is_same = MAPS[hop.op], hop.op in MADE_DOUBLE and self._lie_by_rows(instruction)
        if hop.op == "^" and hop.inputs[1].facts.value == 2:
            kernel, texts = np.multiply, [texts[0], texts[0]]
        if room is None and fresh_is_same:
            self._set(slot, f"{self.constant(kernel)}({', '.join(texts)})", np.ndarray, hop.facts)
            return
        room = room or self._fresh(hop)
        self.line(f"{self.constant(kernel)}({', '.join([*texts, room])})")
        self._set(slot, room, np.ndarray, hop.facts)

    def _lie_by_rows(self, instruction: Instruction) -> bool:
        """Whether matrices surely lie row by row: what numpy makes of them does too, and their cells come in this order."""
        pairs = zip(instruction.inputs, instruction.hops[0].inputs, strict=True)
        return all(slot in self._by_rows or not hop.facts.is_matrix or hop.facts.is_vector for slot, hop in pairs)

    def _room(self, slot: int, hop: Hop, dying: Iterable[int]) -> str | None:
        """The name of memory that the value of a slot is written over; None: it gets memory of its own."""
        found = self._rooms.idle(slot, hop.facts, dying)
        if found is None and self._rooms.borrows(slot, hop.facts):
            if not self._rooms.borrowed:
                self.line(f"scratch = {self.known(pool_of, 'pool_of')}(context).scratch")
            found = self._rooms.borrow(slot)
            self.line(f"{found} = scratch.take({hop.facts.shape})")
        return found

    def _fresh(self, hop: Hop) -> str:
        name = f"n{len(self._lines)}"
        self.line(f"{name} = {self.known(np.empty, 'empty')}({hop.facts.shape})")
        return name

    def _call(self, instruction: Instruction) -> None:
        """Any instruction. What it makes may be a view of what it reads."""
        self._rooms.seen(instruction.inputs)
        name = self.constant(_placed(instruction))
        outputs = ", ".join(f"v{slot}" for slot in instruction.outputs)
        self.line(f"{outputs}, = {name}([{', '.join(self._text[slot] for slot in instruction.inputs)}], context)")
        for slot, hop in zip(instruction.outputs, _made(instruction), strict=True):
            self._text[slot] = f"v{slot}"
            self._kind[slot] = float if not hop.facts.is_matrix else np.ndarray if instruction.scan else None
            if instruction.scan is not None and hop in instruction.scan.stored:
                self._by_rows.add(slot)

    def _set(self, slot: int, text: str, kind: Any, owned: Facts | None = None) -> None:
        self.line(f"v{slot} = {text}")
        self._text[slot], self._kind[slot] = f"v{slot}", kind
        if owned is not None:
            self._rooms.made(slot, owned)
            self._by_rows.add(slot)

    def result(self, result: Result, slot: int) -> None:
        text = self._text[slot]
        if result.kind is float and self._kind[slot] is not float:
            text = f"float({text})"
        self.line(f"variables[{result.name!r}] = {text}")

    def end(self, dead: Iterable[str]) -> None:
        self.line(*(f"del variables[{name!r}]" for name in dead))
        if self._rooms.borrowed:
            self.line(f"scratch.give({', '.join(self._rooms.borrowed)})")
        self.line("return True")

    def function(self) -> Function:
        text = "\n    ".join(["def run(variables, context):", *self._lines])
        found: dict[str, Any] = dict(self._names)
        exec(compile(text, "<recorded statements>", "exec"), found)  # its words are ours, see above
        made: Function = found["run"]
        return made


def _kept(program: Program) -> set[int]:
    """The slots of results, and of what an instruction that makes one of these may have made a view of."""
    kept = set(program.roots)
    for instruction in reversed(program.instructions):
        may_be_view = instruction.scan is None and instruction.hops[0].op not in MAKE_ROOM
        if may_be_view and kept.intersection(instruction.outputs):
            kept.update(instruction.inputs)
    return kept


def _made(instruction: Instruction) -> Sequence[Hop]:
    """The operators whose values an instruction makes."""
    return instruction.hops if instruction.scan is None else [*instruction.scan.stored, *instruction.scan.folds]


def _placed(instruction: Instruction) -> Any:
    """An instruction whose errors name their place in the script."""
    run, span = instruction.run, instruction.hops[0].span

    def call(values: list[Any], context: Context) -> Sequence[Any]:
        try:
            return run(values, context)
        except DMLError as error:
            raise error.at(span) from None

    return call


PRODUCTS: Mapping[str, Callable[..., tuple[str, str]]] = {
    "matmul": lambda a, b: (a, b),
    "tmatmul": lambda a, b: (f"{a}.T", b),
    "matmult": lambda a, b: (a, f"{b}.T"),
    "tsmm": lambda a: (f"{a}.T", a),
}
SUMS: Mapping[str, Callable[..., str]] = {
    "sum": lambda a: f"float(add_reduce({a}, None))",
    "rowSums": lambda a: f"add_reduce({a}, 1, None, None, True)",
    "colSums": lambda a: f"add_reduce({a}, 0, None, None, True)",
    "sumprod": lambda a, b: f"float(vdot({a}, {b}))",
    "sumsquares": lambda a: f"float(vdot({a}, {a}))",
}
MAKE_ROOM = CELLWISE | ROWS | PRODUCTS.keys() | SUMS.keys()
"""Operators whose values are no views of what they read."""
