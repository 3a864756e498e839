"""The reference of the language, made of the declarations: ``python -m braidwater.dml.reference > docs/dml.md``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from sys import modules

from braidwater.dml.builtins import BUILTINS, Builtin
from braidwater.dml.operators.cellwise import BINARY


def reference() -> str:
    """The page as Markdown."""
    return "\n".join([_PAGE.strip(), "", "## Built-in functions", "", *_families(), "", _library(), ""])


def _families() -> Iterator[str]:
    distinct = {builtin.signature.name: builtin for builtin in BUILTINS.values()}
    families = dict.fromkeys(builtin.family for builtin in distinct.values())
    for family in families:
        title = (modules[f"braidwater.dml.builtins.{family}"].__doc__ or "").splitlines()[0]
        yield f"### {title.rstrip('.')}"
        yield ""
        yield "| call | what it gives |"
        yield "| --- | --- |"
        for _, builtin in sorted(distinct.items()):
            if builtin.family == family:
                yield _line(builtin)
        yield ""


def _line(builtin: Builtin) -> str:
    also = f" Also called {', '.join(f'`{name}`' for name in builtin.aliases)}." if builtin.aliases else ""
    return f"| `{_escaped(builtin.signature.text)}` | {_escaped(builtin.doc)}{also} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "\\n")


def _library() -> str:
    names = sorted(path.stem for path in (Path(__file__).parent / "library").glob("*.dml"))
    return (
        "## The library\n\nFunctions written in the language, found by their names: "
        + ", ".join(f"`{name}`" for name in names)
        + ". "
        "Each is a file of comments and code in `braidwater/dml/library`; `library=` (or `--library`) adds folders of your own, "
        "and those of SystemDS (`scripts/builtin`) run as they are."
    )


_CELLWISE = ", ".join(f"`{_escaped(name)}`" for name in BINARY if not name[0].isalpha())
_PAGE = f"""
# DML: the mathematics, and the system decides how to run it

DML is the language of SystemML and SystemDS. Scripts written for them run here unchanged, without a JVM:

```
braidwater dml regression.dml -nvargs X=flights.parquet reg=0.01 --stats
```

```python
from braidwater import dml

results = dml.run("w = solve(t(X) %*% X + diag(matrix(l, ncol(X), 1)), t(X) %*% y)", {{"X": X, "y": y, "l": 0.1}}, ["w"])
results["w"]  # a numpy array

fit = dml.compile("regression.dml", outputs=["B"])  # read once, called many times
fit({{"X": X, "y": y}})["B"]
```

Inputs are numbers, strings, numpy and scipy.sparse matrices, torch tensors, data frames, and everything that
`braidwater.table` takes. A table whose columns are all numbers becomes a matrix, any other a frame.

## Tables that stay where they lie

A matrix from a table that would take more than a quarter of the memory option is read block by block in each scan. With
`engine=` (in the shell `--engine postgresql://USER@HOST/DATABASE` or `spark://HOST:PORT`) the scans of tables larger than 1 MB
run where the rows lie: in the sessions of the server, on the workers of Spark. Sums and products over the rows come back, the
rows do not.

```
braidwater dml regression.dml --engine postgresql://me@host/db --explain runtime -args postgresql://me@host/db::flights
```

```python
dml.run("X = D[, 1:20]; y = D[, 21]; w = solve(t(X) %*% X, t(X) %*% y)", {{"D": flights}}, ["w"], engine=engine)
```

Columns of a table, and what is about as wide as it (`cbind(X, 1)`, a standardised `X`), are kept as expressions and become a
part of the scans that read them. A column that is computed, as long as the table, comes here and travels with each scan that
reads it. Take labels and features from one table: two tables of a server have no common order of rows, and a warning says so.

This page is made of the declarations of the functions; a test keeps it up to date.

## The language

| what | how |
| --- | --- |
| values | doubles, integers, strings, `TRUE` and `FALSE`; matrices of doubles; frames (columns with types); lists |
| statements | `x = e`, `x <- e`, `x += e`, `[a, b] = f(...)`, `f(...)`; newlines mean nothing, `;` may stand anywhere |
| branches | `if (c) {{...}} else {{...}}` |
| loops | `while (c) {{...}}`, `for (i in a:b) {{...}}`, `for (i in seq(a, b, step)) {{...}}` |
| parallel loops | `parfor (i in 1:n, par=4, check=0, mode=PROCESSES) {{...}}`; all of these options may be left out |
| functions | `f = function(matrix[double] X, double reg = 0.1) return (matrix[double] w, int turns) {{...}}` |
| other files | `source("file.dml") as ns`, then `ns::f(...)` |
| arguments | `$name` and `$1`; `ifdef($name, default)` |
| cells | `X[1, 2]`, `X[a:b, ]`, `X[i]` (row i), `X[1:2, 3] = Y`; from 1, both ends included |

The turns of a `parfor` must not depend on one another, which is checked unless `check=0`. They run one after the other, on
threads, in processes or as tasks of the engine, whichever is estimated to end first; `mode` (`TURNS`, `THREADS`, `PROCESSES`, or
`REMOTE_SPARK`: tasks of the engine, whichever it is) decides instead, `par` is how many at a time. Results are the same in every
way, and those of a `for`, but for rounding where a turn adds several times to one sum, and for random numbers without a seed.

Operators, from tight to loose: `^`; unary `-` and `+`; `%*%` (product of matrices); `%%` and `%/%`; `*` and `/`; `+` and `-`;
comparisons; `!`; `&`; `|`. All but `%*%` work cell by cell: {_CELLWISE}.
A row or column, and a 1 x 1 matrix, is repeated. `+` joins strings.

## Numbers that surprise

These are SystemDS's, measured, and kept:

- `7 / 2` is 3.5, `2 ^ 3` is the double 8.0; `%/%` and `%%` truncate towards zero: `-7 %/% 2` is -3, `-7 %% 2` is -1.
- `round` takes halves up: 2.5 to 3, -2.5 to -2.
- Doubles print as in Java: `1.0E7`, `1.0E-4`, `3.0`.
- `quantile(X, p)` of an even number of cells is the mean of the cell at place ceil(p n) and the next, of an odd number the
  cell; of a column of several p always the cells. `moment` divides by n, `var` and `sd` by n - 1.
- `rowIndexMax` gives the last of several greatest cells. NaN makes sums, means, minima and maxima NaN.
- `removeEmpty` of nothing leaves one empty row; `table` refuses categories below 1.
- A variable is what it was assigned, a copy: `B = A; A[1, 1] = 5` leaves `B`.

These are SystemDS's and not kept:

- In a product a zero of either side counts nothing, also where NaN or Inf stands opposite: rows that `table(...) %*% X` selects
  leave the missing cells of the others out. There it depends on the sizes and on how sparse a matrix is.
- A comparison with NaN is false, and what is made of it follows: `(X < 1) == 0` is 1 there. In SystemDS it becomes `X >= 1`.
- The median of as many zeros as greater cells lies between them; there it is 0. `round(NaN)` is NaN; there it is 0.
- The items of a list stay in the order they were given in; there those with names have the order of Java's hash table.
- `dropInvalidType` leaves whole numbers in a column of doubles; there they become missing.

Random numbers are numpy's: a seed gives the same matrix here each time, and another one than in SystemDS.

## What is more than there

Refused by SystemDS, done here unless `strict=True`: a vector to the left of a matrix (`v + A`), `&&` and `||`, arguments by name
and by position in one call, one number put into many cells, a 1 x 1 matrix where a number is needed.

## What is not there

`federated`, `externalFunction` (a function of the library of its name takes its place, as `binning` does for the classic
scripts' trees), and in `transformencode` the key `udf`. Files in the formats proto, cog and delta, and SystemDS's own binary
format, are not read. `map` runs methods of strings, arithmetic and conditions, and of Java nothing else.

Values of more than two dimensions (`tensor`): what SystemDS 3.4 has of them makes one full of a number, a string or a truth
value, combines two by `+ - * / ^`, sums, prints, writes and reads them. It takes no cells of a matrix, no index, no size, no cast
and no number beside it, and none of its scripts has one.

[What SystemDS's own functions give here and there](dml-agreement.md) is compared by a script.
"""


if __name__ == "__main__":
    print(reference(), end="")
