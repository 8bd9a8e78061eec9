"""Indexes are built from one snapshot, measured, and published completely or not at all."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, text

from app.bootstrap import App
from app.config import Settings
from app.db.engine import snapshot
from app.db.queries import embeddings
from app.errors import BuildRefused, BuildRunning, DatabaseUnavailable, IndexUnwritable
from app.index import embedding_reader, faiss_index, faiss_io, kmeans, recall
from app.index.embedding_reader import EmbeddingSnapshot
from app.index.faiss_index import FLOAT16, AnnIndex
from app.index.file_store import IndexFiles
from app.index.recall import RecallBenchmark, TopK
from app.types import Vectors
from app.vectors import to_float32
from conftest import Fill
from support.colours import choose_colours
from support.paths import REPO
from support.shop import add, numbered


def unit(rows: int, dim: int = 32, seed: int = 0) -> Vectors:
    found = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def clustered(rows: int, dim: int = 32) -> Vectors:
    """Vectors around a few hundred centres, like pictures of products of a few hundred kinds."""
    random = np.random.default_rng(1)
    centres = unit(300, dim)[random.integers(0, 300, rows)]
    found = centres + 0.3 * unit(rows, dim, seed=2)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def whole(vectors: Vectors) -> EmbeddingSnapshot:
    return EmbeddingSnapshot("1:1:", np.arange(len(vectors), dtype=np.int64), vectors)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def states(sql: psycopg.Connection) -> list[tuple[Any, ...]]:
    return sql.execute("SELECT state, reason FROM index_build ORDER BY id").fetchall()


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


# Vectors


def test_every_float16_is_widened_exactly() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = np.isfinite(every)
    found = to_float32(every)
    np.testing.assert_array_equal(
        found[finite].view(np.uint32), every[finite].astype(np.float32).view(np.uint32)
    )
    assert (np.abs(found[~finite]) > 60_000).all()


# Clusters


def test_centroids_are_trained_where_the_rows_are() -> None:
    middles = unit(20, 16)
    rows = middles[np.arange(4000) % 20] + 0.05 * unit(4000, 16, seed=7)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = kmeans.train(rows, 80)
    assert (found @ middles.T).max(axis=0).min() > 0.99
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_identical_rows_still_give_the_requested_number_of_centroids() -> None:
    found = kmeans.train(np.tile(unit(1, 16), (500, 1)), 40)
    assert found.shape == (40, 16)
    assert np.isfinite(found).all()


def test_copies_of_one_picture_take_no_lists_from_the_others() -> None:
    """A third of the rows are one vector, which one centroid represents."""
    rows = np.vstack([np.repeat(unit(1, 32, seed=8), 2000, axis=0), clustered(4000)])
    labels = kmeans.assign(rows, kmeans.train(rows, 200))
    assert len(np.unique(labels)) >= 195


def test_an_empty_cluster_takes_half_of_the_largest_one() -> None:
    rows = np.concatenate([np.tile(unit(1, 16), (50, 1)), clustered(300, 16)])
    labels = kmeans.assign(rows, kmeans.train(rows, 60))
    assert len(np.unique(labels)) > 45


def test_each_row_is_assigned_to_its_nearest_centroid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans, "BLOCK_ROWS", 37)
    rows, middles = unit(500, 16), unit(30, 16, seed=1)
    found = kmeans.assign(rows, middles)
    assert found.tolist() == (rows @ middles.T).argmax(axis=1).tolist()
    order, bounds = kmeans.group_by_label(found, 30)
    for label in range(30):
        mine = order[bounds[label] : bounds[label + 1]]
        assert mine.tolist() == np.flatnonzero(found == label).tolist()


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


# A build


def test_a_build_is_published_with_its_figures(app: App, sql: psycopg.Connection) -> None:
    add(app, numbered(70))
    build = app.indexer.rebuild()
    assert (build.state, build.kind, build.rows) == ("published", "flat", 70)
    assert (build.recall_at_10, build.recall_sample) == (1.0, 70)
    assert build.seconds > 0
    data = app.files.path(build.sha256).read_bytes()
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (build.sha256, build.size)
    row = sql.execute("SELECT snapshot IS NOT NULL, cluster FROM index_build").fetchone()
    system = sql.execute("SELECT system_identifier FROM pg_control_system()").fetchone()
    oid = sql.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()
    assert system is not None and oid is not None
    assert row == (True, f"{system[0]}/{oid[0]}")


def test_the_two_newest_builds_stay_and_older_files_go(
    app: App, settings: Settings, sql: psycopg.Connection
) -> None:
    made = []
    for number in range(4):
        add(app, numbered(5, first=5 * number))
        made.append(app.indexer.rebuild())
    assert [state for state, _ in states(sql)] == ["retired", "retired", "published", "published"]
    assert files(settings.index_folder) == sorted(f"{b.sha256}.faiss" for b in made[-2:])


def test_a_file_is_deleted_only_once_its_build_is_retired_for_all(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search would otherwise open a published build whose file is gone."""
    removed, remove = [], app.files.remove

    def noted(sha256: str) -> None:
        state = sql.execute("SELECT state FROM index_build WHERE sha256 = %s", [sha256]).fetchall()
        removed.extend(state)
        remove(sha256)

    monkeypatch.setattr(app.files, "remove", noted)
    for number in range(3):
        add(app, numbered(5, first=5 * number))
        app.indexer.rebuild()
    assert removed == [("retired",)]


def test_builds_with_the_same_file_keep_their_own_search_parameters(app: App) -> None:
    add(app, numbered(40))
    build = app.indexer.rebuild()
    other = replace(build, parameters={"nlist": 1, "nprobe": {"10": 1}})
    assert app.files.open(build).parameters == build.parameters
    assert app.files.open(other).parameters == other.parameters


def test_a_file_that_a_later_build_shares_is_kept(app: App, settings: Settings) -> None:
    add(app, numbered(5))
    builds = [app.indexer.rebuild() for _ in range(4)]
    assert len({build.sha256 for build in builds}) == 1
    assert files(settings.index_folder) == [f"{builds[0].sha256}.faiss"]


def test_only_one_builder_works_at_a_time(app: App, settings: Settings) -> None:
    add(app, numbered(5))
    reading, go_on = threading.Event(), threading.Event()

    def wait_at_copy(*arguments: Any) -> None:
        if "pg_current_snapshot" in arguments[2]:
            reading.set()
            assert go_on.wait(300)

    event.listen(app.engine, "before_cursor_execute", wait_at_copy)
    first = threading.Thread(target=app.indexer.rebuild)
    first.start()
    assert reading.wait(300)
    with App(settings, choose=choose_colours) as other, pytest.raises(BuildRunning):
        other.indexer.rebuild()
    go_on.set()
    first.join()
    with App(settings, choose=choose_colours) as other:
        assert other.indexer.rebuild().state == "published"


def test_a_build_below_its_recall_goal_is_rejected_and_the_old_one_stays(
    app: App, settings: Settings, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(app, numbered(30))
    good = app.indexer.rebuild()
    before = files(settings.index_folder)
    add(app, numbered(30, first=30))
    monkeypatch.setattr(RecallBenchmark, "recall", lambda *_: 0.5)
    bad = app.indexer.rebuild()
    assert (bad.state, bad.recall_at_10, bad.rows) == ("rejected", 0.5, 60)
    assert states(sql)[1] == ("rejected", "recall@10 is 0.500, below 0.99")
    assert files(settings.index_folder) == before == [f"{good.sha256}.faiss"]


def test_a_folder_that_cannot_be_written_is_an_error_before_the_work(
    app: App, tmp_path: Path, sql: psycopg.Connection
) -> None:
    (tmp_path / "file").write_text("no folder")
    settings = app.settings.model_copy(update={"index_dir": tmp_path / "file" / "index"})
    with (
        App(settings, choose=choose_colours) as other,
        pytest.raises(IndexUnwritable, match="LOOKALIKE_INDEX_DIR"),
    ):
        other.indexer.rebuild()
    assert states(sql) == []


def test_a_probe_file_that_another_builder_deleted_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files_here = IndexFiles(tmp_path)
    unlink = Path.unlink

    def clear_and_unlink(self: Path, missing_ok: bool = False) -> None:
        with monkeypatch.context() as undone:
            undone.setattr(Path, "unlink", unlink)
            files_here.remove_drafts()
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", clear_and_unlink)
    files_here.check_writable()
    assert files(tmp_path) == []


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from app.bootstrap import App
from app.config import Settings
from support.colours import choose_colours
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
settings = Settings(home=Path(sys.argv[1]), database_url=sys.argv[2])
try:
    App(settings, choose=choose_colours).indexer.rebuild()
except Exception as exc:
    print(type(exc).__name__, exc)
"""


def test_a_full_disk_leaves_no_files(app: App, settings: Settings, sql: psycopg.Connection) -> None:
    add(app, numbered(300))
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(settings.home), str(settings.database_url)],
        cwd=REPO / "tests",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("IndexUnwritable"), done.stdout + done.stderr
    assert "Nothing was published" in done.stdout
    assert files(settings.index_folder) == []
    [(state, reason)] = states(sql)
    assert state == "rejected"
    assert "could not be written" in reason
    assert app.indexer.rebuild().state == "published"


def test_leftovers_of_a_killed_builder_are_removed_by_the_next(
    app: App, settings: Settings, sql: psycopg.Connection
) -> None:
    add(app, numbered(5))
    sql.execute("INSERT INTO index_build (model_id, cluster, sha256) VALUES (1, 'x', 'left')")
    settings.index_folder.mkdir(parents=True)
    (settings.index_folder / "half.tmp").write_bytes(b"half")
    (settings.index_folder / "left.faiss").write_bytes(b"whole, and named by no row")
    build = app.indexer.rebuild()
    assert states(sql)[0] == ("rejected", "its builder disappeared")
    assert files(settings.index_folder) == [f"{build.sha256}.faiss"]


def test_the_row_names_the_file_before_it_is_there(
    app: App, settings: Settings, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the file of a builder killed in between could never be deleted."""
    add(app, numbered(5))
    replace = Path.replace
    named: list[Any] = []

    def look(self: Path, target: Path) -> Path:
        named.append((sql.execute("SELECT sha256 FROM index_build").fetchone(), target.stem))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", look)
    build = app.indexer.rebuild()
    assert named == [((build.sha256,), build.sha256)]


def test_a_builder_that_was_given_up_publishes_nothing(
    app: App, settings: Settings, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(app, numbered(5))
    write = IndexFiles.write

    def overtaken(self: IndexFiles, index: AnnIndex, announce: Any) -> tuple[str, int]:
        sql.execute("UPDATE index_build SET state = 'rejected', reason = 'given up'")
        return write(self, index, announce)

    monkeypatch.setattr(IndexFiles, "write", overtaken)
    with pytest.raises(BuildRefused, match="another builder"):
        app.indexer.rebuild()
    assert states(sql) == [("rejected", "given up")]
    assert files(settings.index_folder) == []


# What may not be indexed


@pytest.mark.parametrize(
    "harm",
    [
        "ALTER TABLE embedding DISABLE TRIGGER embedding_stamp",
        "ALTER TABLE embedding_m1 DISABLE TRIGGER embedding_stamp",
        "ALTER TABLE embedding ENABLE TRIGGER embedding_stamp",
        "ALTER TABLE embedding_m1 DISABLE TRIGGER ALL; ALTER TABLE embedding_m1 ENABLE TRIGGER ALL",
        "DROP TRIGGER embedding_stamp ON embedding",
        "CREATE TRIGGER zz BEFORE UPDATE ON embedding FOR EACH ROW"
        " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    ],
)
def test_without_a_stamp_that_always_fires_no_index_is_built(
    app: App, sql: psycopg.Connection, harm: str
) -> None:
    add(app, numbered(5))
    sql.execute(harm)  # type: ignore[call-overload]
    with pytest.raises(BuildRefused, match="ENABLE ALWAYS TRIGGER"):
        app.indexer.rebuild()


def test_vectors_that_are_not_unit_are_named(app: App, sql: psycopg.Connection) -> None:
    add(app, numbered(5))
    sql.execute("ALTER TABLE embedding_m1 DROP CONSTRAINT embedding_m1_unit_check")
    sql.execute("UPDATE embedding SET vec = l2_normalize(vec) * vec WHERE picture_id = 3")
    with pytest.raises(BuildRefused, match="picture 3"):
        app.indexer.rebuild()


@pytest.mark.parametrize("off_by", [-1, 1])
def test_rows_that_were_counted_and_not_read_are_never_indexed(
    app: App, monkeypatch: pytest.MonkeyPatch, off_by: int
) -> None:
    """Otherwise uninitialised memory would be indexed as vectors."""
    add(app, numbered(10))
    count = embeddings.count_all
    monkeypatch.setattr(embeddings, "count_all", lambda *asked: count(*asked) + off_by)
    with pytest.raises(BuildRefused, match="REINDEX TABLE embedding_m1"):
        app.indexer.rebuild()
    monkeypatch.undo()
    assert app.indexer.rebuild().state == "published", "and the connection is still of use"


def test_a_vector_that_is_a_little_too_long_is_indexed_as_a_unit_vector(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, numbered(5))
    model = app.catalog.model()
    before = embedding_reader.read_embeddings(app.engine, model).vectors.astype(np.float32)
    sql.execute("ALTER TABLE embedding_m1 DROP CONSTRAINT embedding_m1_unit_check")
    longer = "(SELECT array_agg(x * 1.008) FROM unnest(vec::vector::real[]) AS x)::halfvec"
    sql.execute(f"UPDATE embedding SET vec = {longer} WHERE picture_id = 3")  # type: ignore[call-overload]
    found = embedding_reader.read_embeddings(app.engine, model)
    lengths = np.linalg.norm(found.vectors.astype(np.float32), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=5e-4)
    order = np.argsort(found.ids)
    np.testing.assert_allclose(found.vectors[order].astype(np.float32), before, atol=1e-3)


def test_a_vector_of_another_dimension_is_refused(app: App, sql: psycopg.Connection) -> None:
    add(app, numbered(5))
    sql.execute("ALTER TABLE embedding_m1 DROP CONSTRAINT embedding_m1_dim_check")
    sql.execute("UPDATE embedding SET vec = '[1,0]' WHERE picture_id = 3")
    with pytest.raises(BuildRefused, match="49"):
        app.indexer.rebuild()


def test_alternating_invalid_vectors_are_refused(app: App, sql: psycopg.Connection) -> None:
    """Their total length equals that of valid vectors."""
    add(app, numbered(5))
    sql.execute("ALTER TABLE embedding_m1 DROP CONSTRAINT embedding_m1_dim_check")
    for picture, width in ((2, 48), (3, 50)):
        vector = "[1" + ",0" * (width - 1) + "]"
        sql.execute("UPDATE embedding SET vec = %s WHERE picture_id = %s", [vector, picture])
    with pytest.raises(BuildRefused, match="49"):
        app.indexer.rebuild()


# In and out


@pytest.mark.parametrize("rows", [0, 1, 3000])
def test_embeddings_written_by_copy_are_read_unchanged(
    app: App, sql: psycopg.Connection, rows: int
) -> None:
    sql.execute(
        "INSERT INTO picture (sha256, width, height, thumbnail)"
        " SELECT sha256(n::text::bytea), 1, 1, '' FROM generate_series(1, %s) AS n",
        [rows],
    )
    ids = [id_ for (id_,) in sql.execute("SELECT id FROM picture ORDER BY id")]
    vectors = unit(rows, 49)
    model = app.catalog.model()
    with app.engine.begin() as connection:
        embeddings.store(connection, model, dict(zip(ids, vectors, strict=True)))
    found = embedding_reader.read_embeddings(app.engine, model)
    order = np.argsort(found.ids)
    assert found.ids[order].tolist() == ids
    np.testing.assert_allclose(found.vectors[order], vectors, atol=1e-3)


def twenty_thousand(app: App) -> None:
    """Far more embeddings than the connection buffers."""
    with app.engine.begin() as connection:
        connection.exec_driver_sql(TWENTY_THOUSAND)


TWENTY_THOUSAND = (
    "WITH made AS (INSERT INTO picture (sha256, width, height, thumbnail)"
    " SELECT sha256(n::text::bytea), 1, 1, '' FROM generate_series(1, 20000) AS n RETURNING id)"
    " INSERT INTO embedding (model_id, picture_id, vec)"
    " SELECT 1, id, ('[1' || repeat(',0', 48) || ']')::halfvec FROM made"
)


@pytest.fixture
def database_url(
    request: pytest.FixtureRequest,
    filled_database: Callable[[Fill], str],
    new_database: Callable[[str | None], str],
    template: str,
) -> str:
    """Of a test that uses `many`, a copy of a database with twenty thousand embeddings."""
    if "many" in request.fixturenames:
        return filled_database(twenty_thousand)
    return new_database(template)


@pytest.fixture
def many() -> None: ...


def most_memory(work: Callable[[], object]) -> int:
    """Peak memory of numpy and Python in bytes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("many")
def test_a_pass_over_the_table_holds_no_copy_of_the_vectors(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_reader, "PAGES_PER_BLOCK", 16)
    with embedding_reader.open_embeddings(app.engine, app.catalog.model()) as stored:
        vectors = 2 * stored.dim * stored.rows
        ids = 8 * stored.rows
        assert most_memory(lambda: [None for _ in stored.blocks()]) < ids + vectors / 3


@pytest.mark.parametrize("together", [1, 3, 64, 10_000])
@pytest.mark.usefixtures("many")
def test_however_many_pages_are_read_at_a_time_all_embeddings_are_read_once(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    sql.execute("DELETE FROM embedding WHERE picture_id BETWEEN 3000 AND 9000")
    sql.execute("UPDATE embedding SET vec = ('[0,1' || repeat(',0', 47) || ']')::halfvec"
                " WHERE picture_id % 11 = 0")  # fmt: skip
    monkeypatch.setattr(embedding_reader, "PAGES_PER_BLOCK", together)
    found = embedding_reader.read_embeddings(app.engine, app.catalog.model())
    expected = dict(sql.execute("SELECT picture_id, vec::vector::real[] FROM embedding").fetchall())
    assert sorted(found.ids.tolist()) == sorted(expected)
    turned = {id_ for id_, vector in expected.items() if vector[1]}
    assert set(found.ids[found.vectors[:, 1] == 1].tolist()) == turned
    assert (found.vectors[found.vectors[:, 1] == 0, 0] == 1).all()


@pytest.mark.usefixtures("many")
def test_all_passes_over_the_table_see_one_snapshot(app: App, sql: psycopg.Connection) -> None:
    with embedding_reader.open_embeddings(app.engine, app.catalog.model()) as stored:
        before = list(stored.blocks())
        sql.execute("UPDATE embedding SET vec = vec WHERE picture_id % 7 = 0")
        sql.execute("DELETE FROM embedding WHERE picture_id % 7 = 1")
        after = list(stored.blocks())
        gone = next(ids for ids, _ in before)[:300]
        assert len(stored.vectors_of(gone)) == 300
    assert len(before) == len(after)
    for (ids, vectors), (later_ids, later_vectors) in zip(before, after, strict=True):
        assert np.array_equal(ids, later_ids) and np.array_equal(vectors, later_vectors)


@pytest.mark.parametrize(
    ("ids", "doubled"),
    [([], False), ([7], False), ([3, 1, 2], False), ([3, 1, 3], True), ([1, 10**12], False),
     ([10**12, 1, 10**12], True), ([-5, 4], False), ([-5, -5], True)],
)  # fmt: skip
def test_a_duplicate_id_is_detected(ids: list[int], doubled: bool) -> None:
    assert embedding_reader._has_duplicates(np.array(ids, dtype=np.int64)) is doubled


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


@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
@pytest.mark.usefixtures("many")
def test_a_read_ended_by_the_server_is_an_error_and_the_next_one_succeeds(
    app: App, sql: psycopg.Connection, how: str
) -> None:
    model = app.catalog.model()
    with pytest.raises(DatabaseUnavailable), snapshot(app.engine) as connection:
        backend = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        blocks = embeddings.stream(
            connection, model, range(embeddings.page_count(connection, model))
        )
        next(blocks)
        sql.execute(f"SELECT {how}(%s)", [backend])  # type: ignore[call-overload]
        list(blocks)
    assert len(embedding_reader.read_embeddings(app.engine, model).ids) == 20_000
