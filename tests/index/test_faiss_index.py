"""`app.index.faiss_index` and `faiss_io`: flat indexes and inverted lists, and their files."""

from __future__ import annotations

import hashlib
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from app.index import faiss_index, faiss_io, recall
from app.index.faiss_index import FLOAT16, AnnIndex
from app.index.recall import RecallBenchmark
from app.types import Vectors
from support.index_vectors import clustered, unit, whole

# FAISS


def test_a_flat_index_nominates_exactly_the_nearest() -> None:
    vectors = unit(500)
    ids = np.arange(500, dtype=np.int64) * 7 + 3
    index = faiss_index.build(ids, vectors)
    query = unit(1, seed=9)[0]
    order = np.argsort(-(vectors @ query))
    nominees = index.nominate(query, 20)
    assert nominees.ids.tolist() == ids[order[:20]].tolist()
    assert nominees.cutoff == pytest.approx(float((vectors @ query)[order[19]]), abs=1e-6)


def test_a_flat_index_knows_when_it_has_nominated_all() -> None:
    index = faiss_index.build(np.arange(50, dtype=np.int64), unit(50))
    assert index.nominate(unit(1)[0], 50).cutoff is None
    assert index.nominate(unit(1)[0], 500).cutoff is None
    assert index.nominate(unit(1)[0], 49).cutoff is not None


def test_beyond_five_thousand_rows_an_ivf_index_reaches_the_recall_goal() -> None:
    vectors = clustered(5001)
    assert faiss_index.build(np.arange(5000, dtype=np.int64), vectors[:5000]).kind == "flat"
    index = faiss_index.build(np.arange(5001, dtype=np.int64), vectors, FLOAT16)
    assert index.kind == "ivf"
    benchmark = RecallBenchmark(whole(vectors), faiss_index.DEPTHS)
    tuned = recall.tune(index, benchmark, 0.99)
    assert benchmark.recall(tuned) >= 0.99 and benchmark.filtered_recall(tuned) >= 0.99
    assert tuned.parameters["nprobe"]["10"] < tuned.parameters["nlist"]


def test_an_empty_index_nominates_nothing() -> None:
    nominees = faiss_index.build(np.empty(0, np.int64), np.empty((0, 8), np.float32)).nominate(
        unit(1, 8)[0], 10
    )
    assert (nominees.ids.size, nominees.cutoff) == (0, None)


@pytest.fixture(scope="module")
def large() -> tuple[AnnIndex, Vectors]:
    vectors = clustered(30_000)
    return faiss_index.build(np.arange(30_000, dtype=np.int64), vectors, FLOAT16), vectors


def test_inverted_lists_are_tuned_to_the_goal_at_every_depth(
    large: tuple[AnnIndex, Vectors],
) -> None:
    index, vectors = large
    assert index.kind == "ivf"
    benchmark = RecallBenchmark(whole(vectors), faiss_index.DEPTHS, sample=100)
    tuned = recall.tune(index, benchmark, 0.98)
    for depth in faiss_index.DEPTHS:
        assert benchmark.recall(tuned, depth) >= 0.98
    shallow = tuned.parameters["nprobe"]["10"]
    assert shallow < tuned.parameters["nprobe"]["200"]
    fewer = AnnIndex(index.faiss_index, "ivf", {**tuned.parameters, "nprobe": {"200": shallow}})
    assert benchmark.recall(fewer, 200) < 0.98


def test_the_lists_that_are_needed_are_no_more_and_no_fewer_than_reach_the_goal() -> None:
    vectors = clustered(21_000).astype(np.float16)
    index = faiss_index.build(np.arange(21_000, dtype=np.int64), vectors, FLOAT16)
    benchmark = RecallBenchmark(whole(vectors), (10, 50), sample=100)

    def recall_in(lists: int, depth: int) -> float:
        parameters = {"nlist": index.parameters["nlist"], "nprobe": {"50": lists}}
        return benchmark.recall(AnnIndex(index.faiss_index, "ivf", parameters), depth)

    for depth, goal in product((10, 50), (0.6, 0.9, 0.99)):
        lists = benchmark.nprobe_needed(index, depth, goal)
        assert recall_in(lists, depth) >= goal
        assert lists == 1 or recall_in(lists - 1, depth) < goal


def test_beyond_the_tuned_depths_all_lists_are_probed(
    large: tuple[AnnIndex, Vectors],
) -> None:
    index, vectors = large
    narrow = AnnIndex(index.faiss_index, "ivf", {"nlist": 346, "nprobe": {"10": 1, "200": 1}})
    benchmark = RecallBenchmark(whole(vectors), (200, 201), sample=50)
    assert benchmark.recall(narrow, 200) < 0.9
    assert benchmark.recall(narrow, 201) > 0.999


def test_inverted_lists_never_claim_to_have_nominated_all(
    large: tuple[AnnIndex, Vectors],
) -> None:
    index, vectors = large
    narrow = AnnIndex(index.faiss_index, "ivf", {"nlist": 346, "nprobe": {"10": 4}})
    nominees = narrow.nominate(vectors[0], 30_000, depth=10)
    assert nominees.ids.size < 30_000
    assert -1 not in nominees.ids
    assert nominees.cutoff is not None


def test_a_written_index_is_read_back_by_its_sha256(tmp_path: Path) -> None:
    index = faiss_index.build(np.arange(50, dtype=np.int64), unit(50))
    path = tmp_path / "x.faiss"
    with path.open("wb") as file:
        sha256, size = faiss_io.write(index, file)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    assert path.stat().st_size == size
    again = faiss_io.read(path, sha256, "flat", {})
    query = unit(1, seed=3)[0]
    assert again.nominate(query, 9).ids.tolist() == index.nominate(query, 9).ids.tolist()


def test_float16_rows_are_stored_unchanged() -> None:
    """So the index compares the same numbers as the table."""
    vectors = clustered(21_000).astype(np.float16)
    index = faiss_index.build(np.arange(21_000, dtype=np.int64)[::-1].copy(), vectors, FLOAT16)
    lists = index.faiss_index.invlists
    assert (index.rows, sum(lists.list_size(n) for n in range(lists.nlist))) == (21_000, 21_000)
    for number in (0, 100, lists.nlist - 1):
        size = lists.list_size(number)
        ids = faiss_index.faiss().rev_swig_ptr(lists.get_ids(number), size)
        codes = faiss_index.faiss().rev_swig_ptr(lists.get_codes(number), size * 2 * 32)
        np.testing.assert_array_equal(
            codes.view(np.float16).reshape(size, 32), vectors[20_999 - ids]
        )


def test_inverted_lists_are_read_back_as_they_were(
    large: tuple[AnnIndex, Vectors], tmp_path: Path
) -> None:
    index, vectors = large
    looking = AnnIndex(index.faiss_index, "ivf", {"nlist": 346, "nprobe": {"10": 8}})
    with (tmp_path / "x.faiss").open("wb") as file:
        sha256, _ = faiss_io.write(index, file)
    again = faiss_io.read(tmp_path / "x.faiss", sha256, "ivf", looking.parameters)
    before, after = looking.search(vectors[:50], 10), again.search(vectors[:50], 10)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
