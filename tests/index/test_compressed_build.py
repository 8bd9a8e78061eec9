"""Building compressed indexes: the smallest code that reaches the goal, in any dimension."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from app.bootstrap import App
from app.index import builder, faiss_index, filling, recall
from app.index.embedding_reader import random_mask, sample_rows
from app.index.faiss_index import CODES, FLOAT16, AnnIndex
from app.index.file_store import IndexFiles
from app.index.recall import RecallBenchmark
from app.types import Query, Vectors
from support.compressible_vectors import DIM, content, spectrum
from support.recall_queries import few_queries
from support.shop import add, numbered, vectors


@pytest.mark.parametrize("dim", [49, 512, 768, 1024])
def test_every_dimension_can_be_compressed(dim: int) -> None:
    rows = content(spectrum(600, dim))
    index = faiss_index.inverted_lists(rows.vectors[:10], CODES[0])
    faiss_index.add(index, rows.ids, rows.vectors)
    everywhere = replace(index, parameters={**index.parameters, "nprobe": {}})
    found = [everywhere.nominate(row, 30).ids for row in rows.vectors[:50]]
    assert np.mean([id_ in ids for id_, ids in zip(rows.ids, found, strict=False)]) == 1
    lists = index.faiss_index.invlists
    assert lists.code_size < dim / 4 + 24


def test_the_same_rows_give_the_same_file_and_batches_do_not_matter(tmp_path: Path) -> None:
    rows = content(spectrum(1000, 32))
    files, names = IndexFiles(tmp_path), set()
    for size in (1000, 1000, 77):
        index = faiss_index.inverted_lists(rows.vectors[:30], CODES[0])
        for begin in range(0, 1000, size):
            part = slice(begin, begin + size)
            faiss_index.add(index, rows.ids[part], rows.vectors[part])
        names.add(files.write(index)[0])
    assert len(names) == 1


def test_a_build_of_a_later_version_is_answered_without_it(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, numbered(20))
    build = app.indexer.rebuild()
    sql.execute("UPDATE index_build SET kind = 'later'")
    app.files._open.clear()
    query = Query(vector=vectors(app, [1])[0], model_id=app.catalog.model().id, k=5)
    plan = app.search.search(query).plan
    assert (plan.path, plan.reason_code) == ("exact", "file")
    assert plan.reason.startswith(f"build {build.id}: its kind, later,")


def built(rows: Vectors, goal: float = 0.99) -> Any:
    return builder._build_and_measure(content(rows), np.empty((0, rows.shape[1]), np.float32), goal)


def test_a_build_takes_the_smallest_code_that_reaches_the_goal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(faiss_index, "FLAT_ROWS", 1000)
    few_queries(monkeypatch)
    rows = spectrum(3000, DIM)
    made = built(rows)
    assert (made.index.kind, made.index.parameters["bits"]) == ("rabitq", 2)
    assert made.shortfall(0.99) is None
    monkeypatch.setattr(faiss_index, "MAX_POOL", made.index.pool(10) - 1)
    assert built(rows).index.kind == FLOAT16.kind
    monkeypatch.setattr(faiss_index, "SMALL_ROWS", 1000)
    tried: set[tuple[int, int]] = set()
    by_pool = RecallBenchmark.recall_by_pool

    def noted(self: RecallBenchmark, index: AnnIndex, depth: int, *rest: int) -> Any:
        tried.add((index.parameters["bits"], depth))
        return by_pool(self, index, depth, *rest)

    monkeypatch.setattr(RecallBenchmark, "recall_by_pool", noted)
    finer = built(rows)
    assert tried == {(2, 10), *((4, depth) for depth in faiss_index.DEPTHS)}
    assert (finer.index.kind, finer.index.parameters["bits"]) == ("rabitq", 4)
    assert finer.index.pool(10) < made.index.pool(10)
    monkeypatch.setattr(faiss_index, "MAX_POOL", 9)
    assert built(rows).index.kind == FLOAT16.kind


def test_no_rows_are_encoded_in_a_code_that_fails_with_the_nearest_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(faiss_index, "FLAT_ROWS", 1000)
    monkeypatch.setattr(faiss_index, "SMALL_ROWS", 1000)
    monkeypatch.setattr(builder, "SCREENED_ROWS", 3000)
    few_queries(monkeypatch)
    source = content(spectrum(3000, DIM))
    filled: list[int] = []

    def fill(index: AnnIndex) -> None:
        filled.append(index.parameters["bits"])
        filling.fill_here(index, source)

    def bits() -> int:
        filled.clear()
        made = builder._build_and_measure(source, np.empty((0, DIM), np.float32), 0.99, fill)
        return int(made.index.parameters["bits"])

    assert bits() == 2 and filled == [2]
    monkeypatch.setattr(faiss_index, "MAX_POOL", 15)
    assert bits() == 4 and filled == [4]


def test_a_large_index_may_nominate_more_before_it_takes_a_larger_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(faiss_index, "FLAT_ROWS", 1000)
    monkeypatch.setattr(faiss_index, "SMALL_ROWS", 1000)
    few_queries(monkeypatch)
    rows = spectrum(3000, DIM)
    wanted = built(rows).index.parameters["pool"]
    monkeypatch.setattr(faiss_index, "MAX_POOL", wanted["10"] - 1)
    monkeypatch.setattr(faiss_index, "LARGE_ROWS", 3001)
    assert built(rows).index.parameters["bits"] == 4
    monkeypatch.setattr(recall, "POOL_FACTOR", 1)
    monkeypatch.setattr(faiss_index, "LARGE_ROWS", 3000)
    made = built(rows)
    assert made.index.parameters["bits"] == 2 and made.shortfall(0.99) is None
    assert made.index.parameters["pool"] == wanted, "as many more are tried at every depth"


def test_a_code_that_misses_the_goal_under_filters_gives_way_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(faiss_index, "FLAT_ROWS", 1000)
    monkeypatch.setattr(faiss_index, "SMALL_ROWS", 1000)
    few_queries(monkeypatch)
    measured = RecallBenchmark.filtered_recall

    def low_with_few_bits(benchmark: RecallBenchmark, index: AnnIndex) -> float:
        return 0.98 if index.parameters.get("bits") == 2 else measured(benchmark, index)

    monkeypatch.setattr(RecallBenchmark, "filtered_recall", low_with_few_bits)
    made = built(spectrum(3000, DIM))
    assert (made.index.kind, made.index.parameters["bits"]) == ("rabitq", 4)
    assert made.shortfall(0.99) is None


def test_identical_pictures_are_all_correct_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss_index, "FLAT_ROWS", 100)
    rows = np.vstack([np.repeat(spectrum(1, 64), 400, axis=0), spectrum(400, 64, seed=2)])
    made = built(rows.astype(np.float16))
    assert made.shortfall(0.99) is None


def test_a_sample_is_random_and_the_same_each_time() -> None:
    rows = content(spectrum(5000, 8))
    found = sample_rows(rows, 500)
    assert 400 < len(found) < 600
    np.testing.assert_array_equal(found, sample_rows(rows, 500))
    assert len(sample_rows(rows, 5000)) == 5000
    masks = [random_mask(rows.ids, share) for share in (0.0, 0.2, 1.0)]
    assert [mask.sum() for mask in masks][::2] == [0, 5000]
    assert 900 < masks[1].sum() < 1100
