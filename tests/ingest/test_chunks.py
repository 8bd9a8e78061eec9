"""Chunks of an ingest: read ahead, prepared in bounded memory and threads, written in order."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import torch
from PIL import Image

from app.bootstrap import App
from app.catalog.batch_write import Batch
from app.catalog.ingest_run import ingest_run
from app.encoders.projected_encoder import ProjectedEncoder
from app.encoders.torch_threads import thread_count
from app.types import Product
from ingest import load, prefetch, prepare
from ingest.chunk_writer import ChunkWriter
from ingest.encoder_set import EncoderSet, MaintainedEncoders
from ingest.local_files import LocalPictures
from ingest.pipeline import Ingest, IngestReport
from ingest.prepare import Chunk, Preparer
from ingest.rejects_file import RejectFile
from ingest.sources import SourceReject, SourceRow
from support.colours import ColourEncoder, photo
from support.ingest_results import counted, run_concurrently, sha, shown
from support.sources import (
    SingleEncoder,
    WatchedEncoder,
    contents,
    ingest,
    write_csv,
    write_photos,
    write_source,
)


def run_rows(
    app: App, rows: Iterator[SourceRow], folder: Path, watch: WatchedEncoder
) -> IngestReport:
    """Runs the pipeline over rows that are generated while it reads them."""
    model = app.catalog.model()
    pictures = LocalPictures(folder, max_bytes=app.limits.max_bytes)
    encoders = MaintainedEncoders(app.catalog, SingleEncoder(watch))
    preparer = Preparer(app.catalog, encoders, pictures, app.limits)
    with ingest_run(app.engine, "rows", model) as run, closing(preparer):
        writer = ChunkWriter(app.catalog, encoders, preparer)
        return Ingest(app.catalog, writer, run, RejectFile(None)).run(rows)


@pytest.mark.parametrize(("images", "ahead"), [(1, 2 * 64), (40, 2 * 4)])
def test_a_source_is_read_at_most_two_chunks_ahead(
    app: App, tmp_path: Path, images: int, ahead: int
) -> None:
    count = 1000 if images == 1 else 40
    write_photos(tmp_path, range(images))
    names = tuple(f"{n}.png" for n in range(images))
    taken = 0
    furthest: list[int] = []

    def rows() -> Iterator[SourceRow]:
        nonlocal taken
        for n in range(count):
            taken += 1
            yield SourceRow(n, Product(f"P{n}"), names)

    real = app.catalog.write

    def write(batch, model, run_id):  # type: ignore[no-untyped-def]
        furthest.append(taken - stored[0] - len(batch.entries))
        stored[0] += len(batch.entries)
        return real(batch, model, run_id)

    stored = [0]
    app.catalog.write = write  # type: ignore[method-assign]
    report = run_rows(app, rows(), tmp_path, WatchedEncoder())
    assert report.added == count and 0 < max(furthest) <= ahead


def test_progress_is_reported_after_every_chunk(
    app: App, tmp_path: Path, small_chunks: None
) -> None:
    counts: list[tuple[int, int]] = []
    ingest(
        app,
        write_source(tmp_path, 8),
        progress=lambda report, rows: counts.append((report.read, rows)),
    )
    assert counts == [(3, 8), (6, 8), (8, 8)]


def test_a_picture_deleted_between_reading_and_writing_is_stored_again(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    ingest(app, write_source(tmp_path, 1))
    write_photos(tmp_path, [7])
    source = write_csv(tmp_path / "c.csv", [{"sku": "NEW", "images": "0.png|7.png"}])
    # The run found 0.png stored and brings only 7.png; then the picture is deleted.
    gone = iter([["P0000"]])
    encoder = WatchedEncoder(lambda encoded: [app.catalog.delete(skus) for skus in gone])
    assert counted(ingest(app, source, encoder=encoder)) == (1, 0, 0, 0)
    assert shown(sql) == {"NEW": ["0.png", "7.png"]}
    assert {row[1] for row in contents(sql)["embedding"]} == {sha(0), sha(7)}


def test_two_concurrent_runs_of_one_source_end_like_a_single_run(
    app: App, sql: psycopg.Connection, tmp_path: Path, small_chunks: None
) -> None:
    source = write_source(tmp_path, 40, pictures=2)
    reports = run_concurrently(lambda: ingest(app, source), 3)
    assert sum(report.added for report in reports) == 40
    loaded = contents(sql)
    assert [len(loaded[name]) for name in ("product", "picture", "embedding")] == [40, 80, 80]
    assert Counter(row[0] for row in loaded["shown"]) == {f"P{n:04}": 2 for n in range(40)}


def test_deleting_during_an_ingest_never_loses_a_picture(
    app: App, sql: psycopg.Connection, tmp_path: Path, small_chunks: None
) -> None:
    write_photos(tmp_path, range(6))
    rows = [{"sku": f"P{n}", "images": f"{n % 6}.png|{(n + 1) % 6}.png"} for n in range(18)]
    source = write_csv(tmp_path / "c.csv", rows)
    ended = threading.Event()

    def deleting() -> None:
        turn = 0
        while not ended.is_set():
            turn += 1
            app.catalog.delete([f"P{(turn * 7 + m) % 18}" for m in range(12)], missing_ok=True)

    thread = threading.Thread(target=deleting)
    thread.start()
    try:
        for _ in range(12):
            ingest(app, source)
            lost = sql.execute(
                "SELECT count(*) FROM product_picture AS pp WHERE NOT EXISTS"
                " (SELECT FROM embedding AS e WHERE e.picture_id = pp.picture_id)"
            ).fetchone()
            assert lost == (0,)
    finally:
        ended.set()
        thread.join()
    ingest(app, source)
    assert shown(sql) == {str(row["sku"]): str(row["images"]).split("|") for row in rows}


class MeasuringPreparer(Preparer):
    """Records the number of bytes of prepared pictures in each chunk."""

    held: list[int]

    def prepare(
        self, rows: Sequence[SourceRow | SourceReject], pending: AbstractSet[bytes] = frozenset()
    ) -> Chunk:
        chunk = super().prepare(rows, pending)
        inputs = [each for new in chunk.new.values() for each in new.inputs or ()]
        self.held.append(sum(each.nbytes for each in inputs))
        return chunk


PREPARED = 4 * 4 * 3
"""Bytes of a picture as prepared for the test encoder."""


@pytest.fixture
def prepared_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of prepared pictures of each chunk."""
    monkeypatch.setattr(load, "Preparer", MeasuringPreparer)
    MeasuringPreparer.held = []
    return MeasuringPreparer.held


def test_a_chunk_holds_no_more_prepared_pictures_than_allowed(
    app: App, sql: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    prepared_bytes: list[int],
) -> None:  # fmt: skip
    """Other pictures are decoded when they are encoded; the result is the same."""
    source = write_source(tmp_path, 30)
    monkeypatch.setattr(prepare, "INPUT_BYTES", 5 * PREPARED)
    monkeypatch.setattr(prefetch, "ENCODED_BYTES", 3 * PREPARED)
    monkeypatch.setattr(prefetch, "ENCODERS", 1)
    batches: list[int] = []
    report = ingest(app, source, encoder=WatchedEncoder(batches.append))
    assert (report.added, report.images_embedded) == (30, 30)
    assert prepared_bytes == [5 * PREPARED]
    assert max(np.diff([*batches, 30])) <= 4
    assert len(contents(sql)["embedding"]) == 30


def test_files_that_do_not_fit_in_memory_are_read_again(
    app: App, sql: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_source(tmp_path, 30)
    monkeypatch.setattr(
        prepare, "FILE_BYTES", 5 * max(f.stat().st_size for f in tmp_path.glob("*.png"))
    )
    read: list[str] = []
    real = LocalPictures.read
    monkeypatch.setattr(
        LocalPictures, "read", lambda self, name: read.append(name) or real(self, name)
    )
    assert ingest(app, source).images_embedded == 30
    assert 5 <= sum(count == 1 for count in Counter(read).values()) < 10
    assert {row[1] for row in contents(sql)["embedding"]} == {sha(n) for n in range(30)}


@pytest.mark.parametrize(
    ("sides", "suffices"), [((64,), 64), ((64, 512), 512), ((64, None), None), ((None,), None)]
)
def test_pictures_are_prepared_for_the_model_with_the_largest_input(
    app: App, sides: tuple[int | None, ...], suffices: int | None
) -> None:
    encoders = [ColourEncoder() for _ in sides]
    for encoder, side in zip(encoders, sides, strict=True):
        encoder.input_side = side
    assert EncoderSet((app.catalog.model(),) * len(sides), tuple(encoders)).input_side == suffices


def test_a_fitted_model_and_the_one_it_follows_encode_a_picture_once(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, other = ColourEncoder(), ColourEncoder("other")
    weights = np.random.default_rng(1).normal(size=(base.dim, base.dim)).astype(np.float32)
    fitted = ProjectedEncoder("fitted", base, np.eye(base.dim, dtype=np.float32) + 0.1 * weights)
    model = app.catalog.model()
    models = tuple(replace(model, id=number) for number in range(3))
    encoders = EncoderSet(models, (fitted, other, base))
    asked: list[str] = []
    real = ColourEncoder.encode_prepared
    monkeypatch.setattr(
        ColourEncoder, "encode_prepared",
        lambda self, prepared: asked.append(self.name) or real(self, prepared),
    )  # fmt: skip
    pictures = [Image.open(BytesIO(photo(seed))).convert("RGB") for seed in range(3)]
    vectors = encoders.encode([encoders.prepare(picture) for picture in pictures])
    assert sorted(asked) == ["colours", "other"]
    for encoder, (_, found) in zip(encoders.encoders, sorted(vectors.items()), strict=True):
        assert np.array_equal(found, encoder.encode_pictures(pictures))


def test_a_picture_is_read_and_decoded_once(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_source(tmp_path, 5)
    done: Counter[str] = Counter()
    reading, decoding = LocalPictures.read, prepare.decode_with_size

    def read(self: LocalPictures, name: str) -> bytes:
        done["read"] += 1
        return reading(self, name)

    def decoded(*arguments: Any, **named: Any) -> Any:
        done["decoded"] += 1
        return decoding(*arguments, **named)

    monkeypatch.setattr(LocalPictures, "read", read)
    monkeypatch.setattr(prepare, "decode_with_size", decoded)
    ingest(app, source)
    assert done == {"read": 5, "decoded": 5}


def test_the_next_chunk_is_encoded_while_one_is_written(
    app: App, tmp_path: Path, small_chunks: None
) -> None:
    encoder = WatchedEncoder()
    real, encoded = app.catalog.write, []

    def write(batch: Batch, model: Any, run_id: int | None) -> Any:
        if not encoded:
            wait_until(lambda: encoder.encoded >= 6)
        encoded.append(encoder.encoded)
        return real(batch, model, run_id)

    app.catalog.write = write  # type: ignore[method-assign]
    ingest(app, write_source(tmp_path, 9), encoder=encoder)
    assert encoded[0] >= 6


def test_a_picture_of_the_previous_chunk_is_not_encoded_again(
    app: App, tmp_path: Path, small_chunks: None, prepared_bytes: list[int]
) -> None:
    """Even if it was not stored when the second chunk was prepared."""
    write_source(tmp_path, 5)
    (tmp_path / "copy.png").write_bytes(photo(0, side=8))
    names = ["0.png", "1.png", "2.png", "3.png", "copy.png", "4.png"]
    rows = [{"sku": f"P{n}", "images": name} for n, name in enumerate(names)]
    real = app.catalog.write

    def write(batch: Batch, model: Any, run_id: int | None) -> Any:
        wait_until(lambda: len(prepared_bytes) == 2)
        return real(batch, model, run_id)

    app.catalog.write = write  # type: ignore[method-assign]
    encoder = WatchedEncoder()
    report = ingest(app, write_csv(tmp_path / "c.csv", rows), encoder=encoder)
    assert encoder.encoded == report.images_embedded == 5
    assert (report.added, report.images_reused) == (6, 1)


def wait_until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not there():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.01)


def test_at_most_eight_threads_decode_on_any_number_of_cores(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()
    read = LocalPictures.read

    def slowly(pictures: LocalPictures, name: str) -> bytes:
        seen.add(threading.current_thread().name)
        time.sleep(0.02)
        return read(pictures, name)

    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(LocalPictures, "read", slowly)
    assert ingest(app, write_source(tmp_path, 60)).added == 60
    assert len(seen) == 8


def test_an_ingest_restores_the_thread_count_of_torch(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, three_threads: None
) -> None:
    monkeypatch.setattr(prefetch, "ENCODERS", 3)
    seen: list[int] = []
    with pytest.raises(RuntimeError):
        ingest(app, write_source(tmp_path, 3), encoder=WatchedEncoder(lambda _: stopped(seen)))
    thread = threading.Thread(target=lambda: seen.append(thread_count()))
    thread.start()
    thread.join()
    assert seen == [1, 3]


@pytest.fixture
def three_threads() -> Iterator[None]:
    """torch computes with three threads; FAISS may use the same library of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def stopped(seen: list[int]) -> None:
    seen.append(thread_count())
    raise RuntimeError
