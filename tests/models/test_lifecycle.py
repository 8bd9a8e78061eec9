"""Changing the active model: no embedding is missing, no vectors are mixed, searches go on."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from PIL import Image

from app.bootstrap import App
from app.catalog.batch_write import Batch, ModelsChanged
from app.catalog.entries import ProductEntry
from app.config import Settings
from app.db.locks import LockKey
from app.encoders.base import EncoderChoice
from app.encoders.preprocessing import PreparedPicture
from app.errors import BadImage, BadInput, ModelMismatch, ModelUnavailable, UnknownModel
from app.images.decoding import decode
from app.models.backfill import embed
from app.models.lifecycle import NotReady
from app.types import PictureData, PictureRef, Product, Query, Vectors
from ingest.originals import Originals, folders_of
from support.colours import ColourEncoder, photo
from support.concurrency import wait_until
from support.open_apps import open_apps
from support.sources import ingest, write_source

ROWS = 40


class Mirrored(ColourEncoder):
    """An encoder of equal quality whose vectors cannot be compared: its axes are reversed."""

    def encode_prepared(self, prepared: Sequence[PreparedPicture]) -> Vectors:
        return np.ascontiguousarray(super().encode_prepared(prepared)[:, ::-1])


def choose(model: str, **_: Any) -> EncoderChoice:
    if model in ("auto", "colours"):
        return EncoderChoice(ColourEncoder(), "")
    if model == "mirrored":
        return EncoderChoice(Mirrored("mirrored"), "")
    raise ModelUnavailable(f"There is no model {model}.")


@pytest.fixture
def open_app(settings: Settings) -> Iterator[Callable[..., App]]:
    with open_apps(settings, choose) as open_:
        yield open_


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "in", ROWS)


@pytest.fixture
def filled(open_app: Callable[..., App], source: Path) -> App:
    """A catalogue of forty products under the first model, indexed."""
    app = open_app()
    ingest(app, source)
    app.indexer.rebuild()
    return app


def fill(app: App, source: Path, name: str = "mirrored") -> int:
    """Embed all pictures under a model, and build its index."""
    model = app.lifecycle.model(name)
    find = Originals([source.parent], app.limits, None).find
    report = embed(app.engine, model, app.encoders.for_model(model.id), find)
    app.indexer.rebuild(name)
    return report.embedded


def first(app: App, seed: int, **more: Any) -> tuple[str, float, str]:
    result = app.search.search(Query(picture=photo(seed), k=3, **more))
    match = result.matches[0]
    assert match.similarity is not None
    return match.product.sku, round(match.similarity, 3), result.plan.model


def counts(sql: psycopg.Connection) -> dict[int, int]:
    rows = sql.execute("SELECT model_id, count(*) FROM embedding GROUP BY 1").fetchall()
    return {row[0]: row[1] for row in rows}


def test_a_model_is_activated_and_rolled_back(
    filled: App, open_app: Callable[..., App], source: Path, sql: psycopg.Connection
) -> None:
    page = open_app()
    assert first(page, 7) == ("P0007", 1.0, "colours")
    filled.lifecycle.add("mirrored")
    assert first(page, 7) == ("P0007", 1.0, "colours")
    assert fill(filled, source) == ROWS
    filled.lifecycle.activate("mirrored")
    assert first(page, 7) == ("P0007", 1.0, "mirrored")
    assert page.search.search(Query(picture=photo(7))).plan.path == "faiss"
    assert filled.lifecycle.rollback().active.name == "colours"
    assert first(page, 7) == ("P0007", 1.0, "colours")
    assert counts(sql) == {1: ROWS, 2: ROWS}
    changes = sql.execute(
        "SELECT former_name, active_name, forced FROM model_change ORDER BY id"
    ).fetchall()
    assert changes == [("colours", "mirrored", None), ("mirrored", "colours", None)]


def test_an_incomplete_model_is_activated_only_if_forced(
    filled: App, source: Path, sql: psycopg.Connection
) -> None:
    filled.lifecycle.add("mirrored")
    with pytest.raises(NotReady, match=r"40 pictures have no embedding.*no index of it"):
        filled.lifecycle.activate("mirrored")
    assert first(filled, 7)[2] == "colours"
    change = filled.lifecycle.activate("mirrored", forced_reason="the old one is broken")
    assert change.forced_reason
    result = filled.search.search(Query(picture=photo(7)))
    assert result.plan.model == "mirrored" and result.matches == () and result.plan.shortfall
    assert sql.execute("SELECT forced FROM model_change").fetchone() == ("the old one is broken",)
    fill(filled, source)
    assert first(filled, 7) == ("P0007", 1.0, "mirrored")
    filled.lifecycle.rollback(forced_reason="a reason that is not needed")
    assert sql.execute("SELECT forced FROM model_change ORDER BY id DESC").fetchone() == (None,)


@pytest.mark.parametrize("reason", ["", " ", "a\0b", "\ud800"])
def test_a_forced_change_needs_a_reason(filled: App, sql: psycopg.Connection, reason: str) -> None:
    filled.lifecycle.add("mirrored")
    with pytest.raises(BadInput, match="reason"):
        filled.lifecycle.activate("mirrored", forced_reason=reason)
    with pytest.raises(BadInput, match="reason"):
        filled.lifecycle.rollback(forced_reason=reason)
    assert first(filled, 7)[2] == "colours"
    assert sql.execute("SELECT count(*) FROM model_change").fetchone() == (0,)


def test_a_backfill_reports_its_progress(filled: App, source: Path) -> None:
    model, told = filled.lifecycle.add("mirrored"), []
    find = Originals([source.parent], filled.limits, None).find
    embed(filled.engine, model, filled.encoders.for_model(model.id), find,
          lambda report: told.append((report.embedded, report.left)))  # fmt: skip
    assert told == [(32, 8), (40, 0)]


def test_new_pictures_are_embedded_under_every_maintained_model(
    filled: App, tmp_path: Path, source: Path, sql: psycopg.Connection
) -> None:
    filled.lifecycle.add("mirrored")
    more = write_source(tmp_path / "more", ROWS + 10)
    ingest(filled, more)
    assert counts(sql) == {1: ROWS + 10, 2: 10}
    model = filled.lifecycle.model("mirrored")
    find = Originals([source.parent], filled.limits, None).find
    report = embed(filled.engine, model, filled.encoders.for_model(model.id), find)
    assert (report.embedded, report.failed, report.left) == (ROWS, 0, 0)


def test_an_interrupted_backfill_continues(filled: App, source: Path) -> None:
    model = filled.lifecycle.add("mirrored")
    find, seen = Originals([source.parent], filled.limits, None).find, []

    def stop_midway(sha256: bytes, places: Sequence[str]) -> Image.Image:
        seen.append(sha256)
        if len(seen) == 35:
            raise KeyboardInterrupt
        return find(sha256, places)

    with pytest.raises(KeyboardInterrupt):
        embed(filled.engine, model, filled.encoders.for_model(model.id), stop_midway)
    again = embed(filled.engine, model, filled.encoders.for_model(model.id), find)
    assert (again.embedded, again.left) == (ROWS - 32, 0)


def test_a_changed_or_missing_file_is_reported_and_not_embedded(filled: App, source: Path) -> None:
    model = filled.lifecycle.add("mirrored")
    (source.parent / "3.png").write_bytes(photo(777))
    (source.parent / "4.png").unlink()
    find = Originals([source.parent], filled.limits, None).find
    report = embed(filled.engine, model, filled.encoders.for_model(model.id), find)
    assert (report.embedded, report.failed, report.left) == (ROWS - 2, 2, 2)
    reasons = " ".join(report.reasons)
    assert "'3.png' was changed since it was ingested" in reasons
    assert "there is no file '4.png'" in reasons
    with pytest.raises(BadImage, match="no product shows it"):
        find(b"x" * 32, [])


def test_the_sources_of_ingests_are_recorded(tmp_path: Path, source: Path) -> None:
    found = folders_of([str(source), str(source.parent), str(tmp_path / "gone.csv")])
    assert found == [source.parent]


def test_a_batch_without_the_vectors_of_a_new_model_is_not_written(
    filled: App, sql: psycopg.Connection
) -> None:
    active = filled.catalog.model()
    [vector] = filled.encoder().encode_pictures([decode(photo(500))])
    sha256 = hashlib.sha256(photo(500)).digest()
    entry = ProductEntry(Product("NEW"), (PictureRef(sha256, "500.png"),))
    batch = Batch([entry], {sha256: PictureData(sha256, 32, 32, b"x")}, {sha256: vector})
    filled.lifecycle.add("mirrored")
    with pytest.raises(ModelsChanged, match="mirrored is kept up to date too"):
        filled.catalog.write(batch, active)
    assert sql.execute("SELECT count(*) FROM product").fetchone() == (ROWS,)


@pytest.mark.parametrize("what", ["add", "activate"])
def test_a_running_ingest_notices_a_change_of_models(
    filled: App, open_app: Callable[..., App], source: Path, tmp_path: Path,
    sql: psycopg.Connection, what: str,
) -> None:  # fmt: skip
    other, changed = open_app(), threading.Event()
    if what == "activate":
        other.lifecycle.add("mirrored")
        fill(other, source)
    real = filled.catalog.write

    def write(batch: Batch, model: Any, run_id: int | None) -> Any:
        if not changed.is_set():
            changed.set()
            getattr(other.lifecycle, what)("mirrored")
        return real(batch, model, run_id)

    filled.catalog.write = write  # type: ignore[method-assign]
    report = ingest(filled, write_source(tmp_path / "more", ROWS + 150))
    assert (report.added, report.rejected) == (150, 0)
    expected = ROWS + 150 if what == "activate" else 150
    assert counts(sql)[2] == expected and counts(sql)[1] == ROWS + 150


def test_a_model_is_activated_only_after_writers_that_began_before(
    filled: App, source: Path, sql: psycopg.Connection, settings: Settings
) -> None:
    """One of them may add a picture that has no embedding under it."""
    filled.lifecycle.add("mirrored")
    fill(filled, source)
    waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"
    with psycopg.connect(settings.database_url) as writer, ThreadPoolExecutor(1) as pool:
        writer.execute("SELECT pg_advisory_xact_lock(%s)", [LockKey.CATALOG_WRITE.value])
        writer.execute(
            "WITH product AS (INSERT INTO product (sku) VALUES ('NEW') RETURNING id), picture AS ("
            " INSERT INTO picture (sha256, width, height, thumbnail)"
            " VALUES (sha256('new'), 1, 1, '') RETURNING id)"
            " INSERT INTO product_picture"
            " SELECT product.id, picture.id, 0, '' FROM product, picture"
        )
        change = pool.submit(filled.lifecycle.activate, "mirrored")
        wait_until(lambda: change.done() or sql.execute(waiting).fetchone() == (True,))
        writer.commit()
        with pytest.raises(NotReady, match="1 pictures have no embedding"):
            change.result(300)
    assert first(filled, 0)[2] == "colours"


def test_models_are_changed_under_load_without_an_interruption(
    filled: App, open_app: Callable[..., App], source: Path, tmp_path: Path,
    sql: psycopg.Connection,
) -> None:  # fmt: skip
    """Searches, an ingest and changes of the model at once: none fails, no results are mixed."""
    filled.lifecycle.add("mirrored")
    fill(filled, source)
    apps = [open_app(), open_app()]
    over, wrong, models = threading.Event(), [], Counter[str]()

    def search(app: App) -> None:
        seed = 0
        while not over.is_set():
            seed = (seed + 1) % ROWS
            try:
                found = first(app, seed)
            except Exception as exc:
                wrong.append(repr(exc))
                return
            models[found[2]] += 1
            if found[:2] != (f"P{seed:04}", 1.0):
                wrong.append(f"{seed}: {found}")

    threads = [threading.Thread(target=search, args=(app,)) for app in apps]
    loading = threading.Thread(
        target=ingest, args=(open_app(), write_source(tmp_path / "more", 400))
    )
    for thread in (*threads, loading):
        thread.start()
    changes = 0
    while not wrong and (
        changes < 20 or loading.is_alive() or sum(count > 20 for count in list(models.values())) < 2
    ):
        changes += 1
        filled.lifecycle.activate(["mirrored", "colours"][changes % 2])
        time.sleep(0.1)
    loading.join()
    over.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert min(models.values()) > 20 and len(models) == 2, models
    assert counts(sql) == {1: 400, 2: 400}
    assert filled.catalog.models()[0].name in ("colours", "mirrored")


def test_a_query_may_name_a_maintained_model(filled: App, source: Path) -> None:
    other = filled.lifecycle.add("mirrored")
    fill(filled, source)
    assert first(filled, 7, model_id=other.id) == ("P0007", 1.0, "mirrored")
    assert first(filled, 7) == ("P0007", 1.0, "colours")
    [vector] = Mirrored().encode_pictures([decode(photo(9))])
    found = filled.search.search(Query(vector=vector, model_id=other.id, k=1))
    assert found.matches[0].product.sku == "P0009" and found.plan.model == "mirrored"
    by_sku = filled.search.search(Query(sku="P0009", model_id=other.id, k=1))
    assert by_sku.plan.model == "mirrored"
    for query in (Query(vector=vector), Query(vector=vector, model_id=77), Query(
        picture=photo(1), model_id=77
    )):  # fmt: skip
        with pytest.raises(ModelMismatch, match="kept up to date"):
            filled.search.search(query)


def test_a_dropped_model_leaves_nothing_behind(
    filled: App, open_app: Callable[..., App], source: Path, sql: psycopg.Connection
) -> None:
    page = open_app()
    first(page, 1)
    filled.lifecycle.add("mirrored")
    fill(filled, source)
    with pytest.raises(NotReady, match="colours is the active model"):
        filled.lifecycle.drop("colours")
    filled.lifecycle.activate("mirrored")
    filled.lifecycle.drop("colours")
    assert first(page, 7) == ("P0007", 1.0, "mirrored")
    assert sql.execute("SELECT to_regclass('embedding_m1')").fetchone() == (None,)
    assert sql.execute("SELECT DISTINCT model_id FROM index_build").fetchall() == [(2,)]
    with pytest.raises(NotReady, match="No model was active before"):
        filled.lifecycle.rollback()
    with pytest.raises(UnknownModel, match=r"'colours'.*there are: mirrored"):
        filled.lifecycle.activate("colours")
    filled.indexer.rebuild()
    files = {path.stem for path in filled.files.folder.glob("*.faiss")}
    needed = sql.execute("SELECT sha256 FROM index_build WHERE state = 'published'").fetchall()
    assert files == {row[0] for row in needed}


def test_an_interrupted_drop_is_completed_by_repeating_it(
    filled: App, sql: psycopg.Connection
) -> None:
    model = filled.lifecycle.add("mirrored")
    sql.execute(f"ALTER TABLE embedding DETACH PARTITION embedding_m{model.id} CONCURRENTLY")
    filled.lifecycle.drop("mirrored")
    assert [each.model.name for each in filled.lifecycle.models()] == ["colours"]


def test_the_setting_may_name_any_recorded_model(
    filled: App, open_app: Callable[..., App], source: Path
) -> None:
    page = open_app(model="colours")
    assert first(page, 7)[2] == "colours"
    filled.lifecycle.add("mirrored")
    fill(filled, source)
    filled.lifecycle.activate("mirrored")
    assert first(page, 7)[2] == "mirrored"
    assert first(open_app(model="colours"), 7)[2] == "mirrored"
    with pytest.raises((ModelMismatch, ModelUnavailable)):
        first(open_app(model="nowhere"), 7)


def test_maintained_models_are_preloaded(
    filled: App, open_app: Callable[..., App], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_app()
    first(page, 1)
    model = filled.lifecycle.add("mirrored")
    monkeypatch.setattr("app.models.encoder_pool.PRELOAD_S", 0.0)
    first(page, 2)
    deadline = time.monotonic() + 300
    while model.id not in page.encoders._by_model:
        assert time.monotonic() < deadline
        time.sleep(0.02)
