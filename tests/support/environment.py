"""Environment of the test process and of the commands it starts, set on import."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import psutil

MEMORY = Path("/dev/shm")
MEMORY_PER_WORKER = 2 << 30
"""Bytes; the databases and files of one worker use up to half of it."""


def _keep_temporary_files_in_memory() -> None:
    """Use a temporary folder in memory: tests create a thousand databases and sync thousands of
    files, which takes minutes on a disk.

    Only with plenty of memory, and unless TMPDIR names another folder.
    """
    needed = MEMORY_PER_WORKER * (min(os.cpu_count() or 1, 8) + 1)
    if (
        "TMPDIR" not in os.environ
        and os.access(MEMORY, os.W_OK | os.X_OK)
        and shutil.disk_usage(MEMORY).free >= needed
        and psutil.virtual_memory().available >= needed
    ):
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None  # it is read again


# Vectors of tests are small, so that parallel threads cost more than they save. torch and faiss
# read these variables when they are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
_keep_temporary_files_in_memory()
# Compiled modules are kept, also for the commands that tests start: each of these would compile
# the whole package again, which takes longer than many tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell lets background commands ignore Ctrl-C, and child processes inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
