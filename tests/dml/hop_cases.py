"""Expressions with declared sizes as graphs of operators, for the cases of rewrites."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from braidwater.dml.hops import Dag, Facts, Hop
from braidwater.dml.runtime.kernels import ALL
from braidwater.dml.syntax import nodes, parse

BINARY = {"%*%": "matmul"}


@dataclass(frozen=True)
class Case:
    """Declared leaves, an expression (or several in brackets), and what becomes of it."""

    comment: str
    declared: str
    before: str
    after: str

    def __str__(self) -> str:
        return self.before

    def graph(self) -> tuple[Dag, list[Hop]]:
        dag = Dag(ALL)
        leaves = {
            name: dag.adopt("leaf", (), MappingProxyType({"name": name}), facts)
            for name, facts in self.leaves().items()
        }
        for name, text in re.findall(r"(\w+) = ([^;]+)", self.declared):
            leaves[name] = roots_of(text, dag, leaves)[0]
        return dag, roots_of(self.before, dag, leaves)

    def leaves(self) -> dict[str, Facts]:
        found = {}
        for name, rows, cols, sparsity in re.findall(r"(\w+): (\d+) x (\d+)(?:, (0\.\d+))?", self.declared):
            shape = int(rows), int(cols)
            nnz = (0, int(float(sparsity) * shape[0] * shape[1])) if sparsity else None
            found[name] = Facts.matrix(*shape, nnz)
        return found


def read_cases(path: Path) -> list[Case]:
    """The cases of a file, separated by empty lines: comments, declarations, the question, a line, the answer."""
    cases = []
    for text in path.read_text().strip().split("\n\n"):
        lines = text.splitlines()
        comments = [line for line in lines if line.startswith("#")]
        declared, before, _, after = [line for line in lines if not line.startswith("#")]
        cases.append(Case("\n".join(comments), declared, before, after))
    return cases


def roots_of(text: str, dag: Dag, leaves: dict[str, Hop]) -> list[Hop]:
    """The hops of an expression of the language, or of several in square brackets."""
    parts = text[1:-1].split(", ") if text.startswith("[") else [text]
    return [_hop(_expression(part), dag, leaves) for part in parts]


def _expression(text: str) -> Any:
    statement = parse(f"x = {text}").statements[0]
    assert isinstance(statement, nodes.Assign)
    return statement.value


def _hop(node: Any, dag: Dag, leaves: dict[str, Hop]) -> Hop:
    match node:
        case nodes.Constant():
            return dag.literal(node.value)
        case nodes.Name():
            return leaves[node.name]
        case nodes.Unary(op="-"):
            return dag.node("neg", _hop(node.operand, dag, leaves))
        case nodes.Binary():
            return dag.node(BINARY.get(node.op, node.op), _hop(node.left, dag, leaves), _hop(node.right, dag, leaves))
        case nodes.Call():
            return dag.node(node.name, *[_hop(each.value, dag, leaves) for each in node.arguments])
        case nodes.Index():
            bounds = [node.rows.lower, node.rows.upper, node.columns.lower, node.columns.upper]  # type: ignore[union-attr]
            return dag.node("index", leaves[node.name], *[_hop(bound, dag, leaves) for bound in bounds])
    raise AssertionError(node)
