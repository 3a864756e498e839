"""A scan: operators that go over the same rows together, block by block, so that what lies between them stays in the cache.

A value takes part in a scan in one of four ways. A *source* has the rows of the scan and is read block by block. A *constant*
(a scalar, a row vector, the right side of a product) is there as a whole before the scan begins. An *aligned* value has the
rows of the scan too, and row i of it depends on row i of the sources alone. A *fold* is a sum, an extreme or a product over the
rows: each part of the rows makes a state, states are merged in the order of the parts.

The same plan serves matrices in memory and matrices that are streamed from a table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from braidwater.dml.hops import Hop
from braidwater.dml.plan.cost import CELLWISE

ROW_AGGREGATES = frozenset(["rowSums", "rowMeans", "rowMins", "rowMaxs", "rowIndexMax", "rowIndexMin"])
PRODUCTS = frozenset({"matmul", "matmult"})
FIRST_ONLY = PRODUCTS | {"index", "replace"}  # the first input is read row by row, the others are needed as a whole
FOLDS = frozenset({
    "sum", "mean", "min", "max", "sumsq", "sumsquares", "sumprod", "colSums", "colMeans", "colMins", "colMaxs",
    "colVars", "colSds", "tmatmul", "tsmm",
})  # fmt: skip
NARROW = (
    64  # columns up to which intermediate blocks lie column by column: operations with a vector then run along the rows
)
BLOCK_BYTES = 768 * 1024  # of what one thread reads again: it stays in the second-level cache (1 MB here)
FEWEST_ROWS = 64
FEWEST_CELLS = 1 << 18  # of all that a block holds: some 200 us of work beside the 15 us of Python for a block
PARTS = 32  # states that are merged in order, whatever the number of threads


@dataclass
class Scan:
    """The operators of one scan, inputs before what they go into.

    `stored` are the aligned ones that others need as matrices; `again` those that an earlier scan makes too.
    """

    rows: int
    aligned: list[Hop] = field(default_factory=list)
    folds: list[Hop] = field(default_factory=list)
    stored: list[Hop] = field(default_factory=list)
    again: list[Hop] = field(default_factory=list)

    @property
    def members(self) -> list[Hop]:
        return sorted([*self.aligned, *self.folds], key=lambda hop: hop.number)

    @property
    def sources(self) -> list[Hop]:
        """The matrices that are read block by block."""
        inside = set(self.aligned)
        found = {each: None for hop in self.members for each in aligned_inputs(hop, self.rows) if each not in inside}
        return list(found)

    @property
    def constants(self) -> list[Hop]:
        """What must be there before the scan begins."""
        found = {each: None for hop in self.members for each in constant_inputs(hop, self.rows)}
        return list(found)

    @property
    def block_rows(self) -> int:
        """Rows of a block of matrices in memory.

        As many as keep in a thread's cache what is read more than once; a matrix that is read by one operator only goes past it.
        Where that is more than a part of the rows it is a part, so that all threads have work.
        """
        reads = Counter(each for hop in self.members for each in aligned_inputs(hop, self.rows))
        again = [*self.aligned, *(source for source in self.sources if reads[source] > 1)]
        share = max(-(-self.rows // PARTS), FEWEST_CELLS // max(_width([*self.sources, *self.aligned]), 1))
        return self._rows_of_block(min(BLOCK_BYTES // (8 * max(_width(again), 1)), share))

    @property
    def streamed_block_rows(self) -> int:
        """Rows of a block when a source is made block by block from a table, so that it takes its place in the cache."""
        return self._rows_of_block(BLOCK_BYTES // (8 * max(_width([*self.sources, *self.aligned]), 1)))

    def _rows_of_block(self, rows: int) -> int:
        widest = max((hop.facts.cols or 1 for hop in self.folds if hop.op in ("tmatmul", "tsmm")), default=0)
        rows = int(min(max(rows, FEWEST_ROWS, min(widest, 1024)), self.rows))
        return -(-self.rows // max(round(self.rows / rows), 1))  # of equal sizes: a short last one costs like any other


def _width(hops: Iterable[Hop]) -> int:
    return sum(hop.facts.cols or 1 for hop in hops)


def aligned_inputs(hop: Hop, rows: int) -> list[Hop]:
    """The inputs that an operator of a scan reads row by row."""
    if hop.op in FIRST_ONLY:
        return [hop.inputs[0]]
    return [each for each in hop.inputs if each.facts.rows == rows]


def constant_inputs(hop: Hop, rows: int) -> list[Hop]:
    """The inputs that it needs as a whole."""
    if hop.op in FIRST_ONLY:
        return list(hop.inputs[1:])
    return [each for each in hop.inputs if each.facts.rows != rows]


def can_align(hop: Hop) -> bool:
    """Whether row i of the value depends on row i of its inputs alone, in a way the scan has a kernel for."""
    facts = hop.facts
    if not (facts.is_matrix and facts.known and facts.rows and facts.cols):
        return False
    if hop.op in CELLWISE:
        return any(each.facts.is_matrix for each in hop.inputs) and all(_fits(each, hop) for each in hop.inputs)
    if hop.op == "cbind":
        return all(each.facts.is_matrix and each.facts.rows == facts.rows and each.facts.cols for each in hop.inputs)
    if hop.op == "index":  # a range of columns
        return facts.rows == hop.inputs[0].facts.rows
    if hop.op == "replace":
        return facts.shape == hop.inputs[0].facts.shape and not any(each.facts.is_matrix for each in hop.inputs[1:])
    if hop.op in ROW_AGGREGATES or hop.op in PRODUCTS:
        return all(each.facts.is_matrix and each.facts.known and each.facts.cells for each in hop.inputs)
    return False


def can_fold(hop: Hop) -> bool:
    """Whether the value is a fold over the rows of its inputs."""
    return (
        hop.op in FOLDS
        and all(
            each.facts.is_matrix
            and each.facts.known
            and each.facts.rows == hop.inputs[0].facts.rows
            and each.facts.cells
            for each in hop.inputs
        )
        and (hop.op != "sumprod" or hop.inputs[0].facts.shape == hop.inputs[1].facts.shape)
    )


def _fits(each: Hop, hop: Hop) -> bool:
    """A scalar, a matrix of the result's shape, or a column, row or 1 x 1 that is repeated."""
    facts = each.facts
    if not facts.is_matrix:
        return not isinstance(facts.value, str)
    return facts.known and facts.rows in (1, hop.facts.rows) and facts.cols in (1, hop.facts.cols)
