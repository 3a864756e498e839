"""CPU seconds until the command line has helped, and until the package is imported; beside an interpreter that does nothing.

python benchmarks/startup.py
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness import Benchmark

bench = Benchmark("Start of a process", rows=0)


def run(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    return f"{len(done.stdout.splitlines())} lines printed"


@bench.contender("braidwater --help", ours=True)
def command(data: Path) -> str:
    # as the console script does
    return run("-c", "import sys; sys.argv = ['braidwater', '--help']; from braidwater.cli import main; main()")


@bench.contender("import braidwater", ours=True)
def package(data: Path) -> str:
    return run("-c", "import braidwater")


@bench.contender("import scikit-learn's LogisticRegression")
def scikit_learn(data: Path) -> str:
    return run("-c", "from sklearn.linear_model import LogisticRegression")


@bench.contender("python -c pass")
def nothing(data: Path) -> str:
    return run("-c", "pass")


if __name__ == "__main__":
    bench.main()
