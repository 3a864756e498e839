"""sum(A %*% B) -> the dot product of colSums(A) and rowSums(B); rowSums(A %*% B) -> A %*% rowSums(B), and for columns."""

from __future__ import annotations

from collections.abc import Iterator

from braidwater.dml.hops import Dag, Hop
from braidwater.dml.rewrites.base import OVERFLOW, Rule, transposed
from braidwater.dml.rewrites.chain_order import PRODUCTS


def candidates(hop: Hop, dag: Dag) -> Iterator[Hop]:
    product = hop.inputs[0]
    if product.op not in PRODUCTS:
        return
    A, B = product.inputs
    if hop.op == "sum":
        left = dag.node("rowSums", A) if product.op == "tmatmul" else transposed(dag.node("colSums", A), dag)
        right = transposed(dag.node("colSums", B), dag) if product.op == "matmult" else dag.node("rowSums", B)
        yield dag.node("sumprod", left, right)
    elif hop.op == "rowSums" and product.op != "matmult":
        yield dag.node(product.op, A, dag.node("rowSums", B))
    elif hop.op == "rowSums":
        yield dag.node("matmult", A, dag.node("colSums", B))
    elif product.op != "tmatmul":
        yield dag.node(product.op, dag.node("colSums", A), B)
    else:
        yield dag.node("tmatmul", dag.node("rowSums", A), B)


RULE = Rule("sum of a product", ("sum", "rowSums", "colSums"), candidates, differs=OVERFLOW)
