"""A worker process: ``python -m braidwater.engines.local.worker FILE_DESCRIPTOR``, which ends with its parent."""

from __future__ import annotations

import signal
import sys
from multiprocessing.connection import Connection

from braidwater.engines.local.processes import serve

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    serve(Connection(int(sys.argv[1])))
