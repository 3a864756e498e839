"""Matrices that do not fit into memory, on a disk that is really full: a file system of 12 MB."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

OWN_DISK = ["unshare", "--map-root-user", "--mount", "sh", "-c"]  # mounts in a namespace, which end with the process

SCRIPT = """
import sys
import numpy as np
from braidwater import dml
from braidwater.errors import CacheError
from braidwater.options import options

program = '''
write(X[1:5, ], "{kept}", format="csv")
A = X + 1; B = cumsum(X); C = A * 2; D = rev(B)
print("made " + sum(A))
E = cumsum(A) + rev(D)
'''
with options(cache_directory="{disk}"):
    try:
        found = dml.run(program, {{"X": np.ones((700, 1000))}}, ["A", "B", "C", "D", "E"], memory="16MB")
        print(sum(float(np.asarray(found[name]).sum()) for name in "ABCDE"))
    except CacheError as error:
        print(error)
        sys.exit(7)
"""


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run([*OWN_DISK, "mount -t tmpfs none /mnt"], capture_output=True, check=False)
    return tried.returncode == 0


@pytest.mark.skipif(not can_mount(), reason="the system lets nobody mount a file system of his own")
def test_a_full_disk_is_an_error_that_tells_how_much_is_free_and_leaves_what_was_written(tmp_path: Path) -> None:
    disk, kept = tmp_path / "disk", tmp_path / "kept.csv"
    disk.mkdir()
    (tmp_path / "spill.py").write_text(SCRIPT.format(disk=disk, kept=kept))
    command = f"mount -t tmpfs -o size=12m tmpfs {disk} && exec {sys.executable} {tmp_path / 'spill.py'}"
    done = subprocess.run([*OWN_DISK, command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 7, done.stderr
    assert "made 1400000" in done.stdout
    assert f"A matrix of 5.6 MB that does not fit into memory cannot be written to '{disk}/spilled'" in done.stdout
    assert "No space left on device; 1.4 MB are free" in done.stdout.replace("\n", " ")
    np.testing.assert_array_equal(np.loadtxt(kept, delimiter=","), np.ones((5, 1000)))
