"""The reference of the library, made of the headers of its scripts: ``python -m braidwater.dml.library_reference``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby

from braidwater.dml.run import LIBRARY
from braidwater.dml.syntax import parse

FAMILIES = {
    "Linear regression": ["lm", "lmCG", "lmDS", "lmPredict", "lmPredictStats", "steplm", "lasso"],
    "Generalised linear models": ["glm", "glmPredict", "stepglm", "multiLogReg", "multiLogRegPredict"],
    "Support vector machines and naive Bayes": [
        "l2svm", "l2svmPredict", "msvm", "msvmPredict", "naiveBayes", "naiveBayesPredict", "gaussianClassifier",
    ],
    "Trees": ["decisionTree", "decisionTreePredict", "randomForest", "randomForestPredict"],
    "Clusters, neighbours, components, factors": [
        "kmeans", "kmeansPredict", "pca", "pcaTransform", "pcaInverse", "als", "alsCG", "alsDS", "alsPredict",
        "alsTopkPredict", "dbscan", "components", "knnbf",
    ],
    "Survival": ["cox", "km"],
    "Statistics": ["univar", "bivar", "cor", "dist", "flattenQuantile"],
    "Scores": ["getAccuracy", "confusionMatrix", "f1Score", "mcc", "auc", "mse", "rmse", "mae"],
    "Rows and columns prepared": [
        "split", "splitBalanced", "scale", "scaleApply", "scaleMinMax", "scaleRobust", "scaleRobustApply", "normalize",
        "normalizeApply", "imputeByMean", "imputeByMeanApply", "imputeByMedian", "imputeByMedianApply", "imputeByMode",
        "imputeByModeApply", "outlierByIQR", "outlierByIQRApply", "outlierBySd", "outlierBySdApply", "outlier", "winsorize",
        "winsorizeApply", "toOneHot", "selectByVarThresh",
    ],
    "Parts that the others share": ["binning", "intercept", "linearTerms", "softmax"],
}  # fmt: skip


@dataclass(frozen=True)
class LibraryFunction:
    """A function of the library with what its script's header says. `words` has a text for each parameter and result."""

    name: str
    purpose: str
    words: dict[str, str]
    signature: str
    parameters: tuple[str, ...]
    results: tuple[str, ...]


@cache
def library_function(name: str) -> LibraryFunction:
    """Read the script of a function.

    >>> library_function("softmax").results
    ('P',)
    """
    text = (LIBRARY / f"{name}.dml").read_text(encoding="utf-8")
    header, _, _ = text.partition("\n\n")
    function = parse(text, f"{name}.dml").functions[f"m_{name}"]
    purpose, _, words = header.partition("\n#\n")
    return LibraryFunction(
        name,
        " ".join(line.removeprefix("#").strip() for line in purpose.splitlines()),
        dict(_words(words)),
        _signature(name, text),
        tuple(parameter.name for parameter in function.parameters),
        tuple(result.name for result in function.results),
    )


def library_reference() -> str:
    """The page as Markdown."""
    return "\n".join([_PAGE.strip(), "", *_families()])


def _words(lines: str) -> Iterator[tuple[str, str]]:
    """Names and texts of lines ``# name, name  text``; a line that begins with blanks goes on with the text before."""
    found: list[tuple[list[str], str]] = []
    for line in lines.splitlines():
        entry = re.match(r"# (\w[\w, ]*?)  +(\S.*)", line)
        if entry:
            found.append((entry[1].split(", "), entry[2]))
        elif found:
            names, before = found[-1]
            found[-1] = (names, f"{before} {line.removeprefix('#').strip()}")
    for names, text in found:
        yield from ((name, text) for name in names)


def _signature(name: str, text: str) -> str:
    """The function's head as it stands in the script, on one line."""
    head = text[text.index(f"m_{name} = function") :]
    return " ".join(head[: head.index("{")].split()).removeprefix("m_")


def _families() -> Iterator[str]:
    for family, names in FAMILIES.items():
        yield f"## {family}"
        yield ""
        for function in map(library_function, names):
            yield f"### {function.name}"
            yield ""
            yield f"```\n{_wrapped(function.signature)}\n```"
            yield ""
            yield function.purpose
            yield ""
            yield "| | |"
            yield "| --- | --- |"
            yield from _rows(function, function.parameters, "")
            yield from _rows(function, function.results, "→ ")
            yield ""


def _rows(function: LibraryFunction, names: tuple[str, ...], arrow: str) -> Iterator[str]:
    for text, alike in groupby(names, key=function.words.__getitem__):
        escaped = text.replace("|", "\\|")
        yield f"| {arrow}{', '.join(f'`{name}`' for name in alike)} | {escaped} |"


def _wrapped(signature: str) -> str:
    return signature.replace(" return (", "\n  return (")


_PAGE = """
# The library: algorithms in DML

Scripts of our own in [the language](dml.md), called by their names like built-in functions; where SystemDS has a function of
the name, ours takes the same arguments and gives results of the same shapes in the same order, so that scripts that call it
run as they are; the numbers are the same too where nothing is random, but for [a few](dml-agreement.md#our-own-library), whose
headers say why. Each is a file in `braidwater/dml/library` whose header says what stands here (this page is made of them), and
where the algorithm comes from.

```python
from braidwater import dml

fit = dml.run("B = lm(X = X, y = y, icpt = 1, verbose = FALSE)", {"X": X, "y": y}, ["B"])
```

`verbose` is mostly TRUE unless given, as in SystemDS: the scripts then print how it goes.
"""

if __name__ == "__main__":
    print(library_reference(), end="")
