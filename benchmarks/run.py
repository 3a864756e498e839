"""All benchmarks one after the other, then docs/benchmarks.md.

python benchmarks/run.py            every benchmark, one after the other
python benchmarks/run.py --quick    a minute or two each, one round, figures in a temporary folder and no document
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
QUICK_ROWS = {
    "startup.py": 0,
    "linear_regression.py": 200_000,
    "pca.py": 200_000,
    "k_means.py": 200_000,
    "sgd.py": 200_000,
    "groups.py": 200_000,
    "cross_validation.py": 200_000,
    "search.py": 20,
    "logistic_regression.py": 200_000,
    "path_of_penalties.py": 200_000,
    "warm_pass.py": 1_000_000,
    "memory.py": 1_000_000,
    "deep/trainer.py": 8_000,
    "deep/all_reduce.py": 24_000,  # with fewer there are no turns to compare
    "deep/mini_batches.py": 50_000,
    "deep/parallel_model.py": 2_048,
    "feeding.py": 40_000,
    "parallel_sync.py": 8_000,
    "parallel_async.py": 16_000,
    "strategies.py": 2_000,
    "fused.py": 100_000,
    "hopper.py": 10_000,
    "spark.py": 50_000,
    "spark_gangs.py": 40_000,
    "spark_rows.py": 50_000,
    "dml.py": 5_000,
    "dml_memory.py": 20_000,
    "dml_systemds.py": 5_000,
}
# those with options of their own, quick and in full; they print and keep nothing
OWN_OPTIONS = {
    "prediction.py": (["--steps", "20", "--only", "MLP"], []),
    "postgres.py": (["--rows", "50000", "--repeat", "1"], []),
    "spark_constants.py": (["--rows", "50000"], []),
    "sql.py": (["--rows", "50000", "--repeats", "1"], []),
    "dml_overhead.py": ([], []),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rows, one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", help="benchmarks to run, such as k_means (by default all)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="braidwater-quick-") as folder:
        failed = []
        quick = {
            script: ["--rows", str(rows), "--rounds", "1", "--results", folder] for script, rows in QUICK_ROWS.items()
        }
        full = {script: ["--rounds", str(given.rounds)] for script in QUICK_ROWS}
        for script, (few, all_) in OWN_OPTIONS.items():
            quick[script], full[script] = few, all_
        for script, options in (quick if given.quick else full).items():
            if given.only and Path(script).stem not in given.only:
                continue
            print(f"== {script}", flush=True)
            if subprocess.run([sys.executable, str(HERE / script), *options], check=False).returncode:
                failed.append(script)
    if not given.quick:
        subprocess.run([sys.executable, str(HERE / "document.py")], check=True)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
