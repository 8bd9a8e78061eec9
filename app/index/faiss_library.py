"""The faiss module, imported on first use with the right settings for this processor, and how many
threads it uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def faiss() -> Any:
    """The faiss module, imported on first use.

    Its bundled OpenBLAS does not recognise modern processors, falls back to code for one of 2004
    and is then 2 to 4 times slower, so the processor type is set before the import.
    """
    if "OPENBLAS_CORETYPE" not in os.environ and (kind := _openblas_core_type()):
        os.environ["OPENBLAS_CORETYPE"] = kind
    import faiss as library

    return library


@contextmanager
def one_thread() -> Iterator[None]:
    """FAISS searches with the calling thread only, for few queries: with two threads, 290 queries
    took 1.6 times the processor time and nine twice, because the threads wait actively."""
    before = faiss().omp_get_max_threads()
    faiss().omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss().omp_set_num_threads(before)


def _openblas_core_type() -> str | None:
    try:
        flags = Path("/proc/cpuinfo").read_text().split("flags", 1)[1].split("\n", 1)[0].split()
    except (OSError, IndexError):
        return None
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= set(flags):
        return "SKYLAKEX"
    return "HASWELL" if {"avx2", "fma"} <= set(flags) else None
