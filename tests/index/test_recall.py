"""`app.index.recall`: the exact nearest of sampled queries, and the share that was found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.index import embedding_reader, faiss_index, kmeans, recall
from app.index.faiss_index import FLOAT16, AnnIndex
from app.index.recall import RecallBenchmark, TopK
from support.index_vectors import clustered, most_memory, unit, whole


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 40), st.integers(1, 300))
def test_top_k_over_blocks_equals_a_full_sort(seed: int, most: int, part: int, rows: int) -> None:
    """Integer scores, so that many are equal; the first blocks hold few rows, or all."""
    scores = np.random.default_rng(seed).integers(0, 50, (5, rows)).astype(np.float32)
    ids = np.arange(rows, dtype=np.int64) + 7
    best = TopK(5, most)
    for begin in range(0, rows, part):
        block = slice(begin, begin + part)
        best.offer(scores[:, block], ids[block])
    found, most = best.answers(), min(most, rows)
    np.testing.assert_array_equal(found.similarities, -np.sort(-scores, axis=1)[:, :most])
    np.testing.assert_array_equal(
        np.take_along_axis(scores, found.ids - 7, axis=1), found.similarities
    )
    assert all(len(set(row)) == most for row in found.ids.tolist())
    assert found.whole == (rows <= best._size)


def test_the_benchmark_is_exact_across_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors = unit(1000, seed=4)
    whole_at_once = RecallBenchmark(whole(vectors), (10, 50), sample=20)
    monkeypatch.setattr(embedding_reader, "BLOCK_ROWS", 64)
    in_parts = RecallBenchmark(whole(vectors), (10, 50), sample=20)
    scores = -np.sort(-(in_parts.queries @ vectors.T), axis=1)
    for depth in (10, 50):
        wanted = scores[:, depth - 1] - recall.EPSILON
        for found in (whole_at_once, in_parts):
            np.testing.assert_allclose(found._exact.floors(depth), wanted, atol=1e-6)


def test_recall_is_the_share_of_the_nearest_that_was_found() -> None:
    vectors = unit(1000)
    benchmark = RecallBenchmark(whole(vectors), sample=50)
    assert benchmark.recall(faiss_index.build(np.arange(1000, dtype=np.int64), vectors)) == 1
    half = faiss_index.build(np.arange(0, 1000, 2, dtype=np.int64), vectors[::2])
    exact = np.argsort(-(benchmark.queries @ vectors.T), axis=1)[:, :10]
    assert benchmark.recall(half) == pytest.approx(float((exact % 2 == 0).mean()), abs=0.01)


def test_any_of_several_identical_rows_counts_as_correct() -> None:
    """Otherwise a catalogue full of one placeholder photo could never publish an index."""
    vectors = np.tile(unit(1), (200, 1))
    index = faiss_index.build(np.arange(200, dtype=np.int64), vectors)
    assert RecallBenchmark(whole(vectors)).recall(index) == 1


def test_near_identical_copies_do_not_lower_the_recall() -> None:
    """Sixty copies of each picture, so similar that float16 rounding determines their order."""
    copies = np.repeat(unit(350, 128), 60, axis=0) + 0.003 * unit(21_000, 128, seed=3)
    vectors = (copies / np.linalg.norm(copies, axis=1, keepdims=True)).astype(np.float16)
    index = faiss_index.build(np.arange(21_000, dtype=np.int64), vectors, FLOAT16)
    everywhere = AnnIndex(index.faiss_index, "ivf", {**index.parameters, "nprobe": {}})
    benchmark = RecallBenchmark(whole(vectors), sample=100)
    assert benchmark.recall(everywhere) > 0.99
    assert benchmark.filtered_recall(everywhere) > 0.99


def test_neither_building_nor_measuring_copies_the_vectors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for room in (kmeans, embedding_reader):
        monkeypatch.setattr(room, "BLOCK_ROWS", 128)
    monkeypatch.setattr(faiss_index, "ADD_ROWS", 128)
    vectors = clustered(30_000, 256).astype(np.float16)
    made = whole(vectors)

    def work() -> None:
        index = faiss_index.build(made.ids, vectors)
        RecallBenchmark(made, sample=50).filtered_recall(index)

    assert most_memory(work) < vectors.nbytes / 2
