"""The faiss module, imported on first use with the right settings for this processor, how many
threads it uses, and products of vectors in one thread."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.types import Vectors


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


def best_products(queries: Vectors, rows: Vectors) -> NDArray[np.float32]:
    """The greatest inner product of each query, (n, dim), with a row, (m, dim): shape (n,). There
    is a row at least.

    In one thread: numpy's product of matrices of this size starts threads that wait actively, and
    took 25 ms of processor time where this took 1.
    """
    with one_thread():
        products, _ = faiss().knn(queries, rows, 1, metric=faiss().METRIC_INNER_PRODUCT)
    best: NDArray[np.float32] = products[:, 0]
    return best


def _openblas_core_type() -> str | None:
    try:
        flags = Path("/proc/cpuinfo").read_text().split("flags", 1)[1].split("\n", 1)[0].split()
    except (OSError, IndexError):
        return None
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= set(flags):
        return "SKYLAKEX"
    return "HASWELL" if {"avx2", "fma"} <= set(flags) else None
