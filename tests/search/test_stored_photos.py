"""Stored photos: searched by their id they find what the photo finds, until they expire."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO

import psycopg
import pytest
from PIL import Image

from app.bootstrap import App
from app.config import Settings
from app.errors import BadImage, Busy, UnknownPhoto
from app.search.vector_cache import VectorCache
from app.types import Query, RegionMatches, SearchResult
from support.colours import photo
from support.region_colours import choose_region_colours
from support.shop import add, numbered

FIRST, SECOND = 7, 21


@pytest.fixture
def app(settings: Settings) -> Iterator[App]:
    """An encoder that finds objects, and forty products with an index."""
    with App(settings, choose=choose_region_colours) as app:
        add(app, numbered(40))
        app.indexer.rebuild()
        yield app


def two() -> bytes:
    """A room with the photos of two products."""
    room = Image.new("RGB", (400, 300), (128, 128, 128))
    for number, place in ((FIRST, (10, 40)), (SECOND, (250, 120))):
        with Image.open(BytesIO(photo(number))) as picture:
            room.paste(picture.resize((120, 120), Image.Resampling.NEAREST), place)
    file = BytesIO()
    room.save(file, "PNG")
    return file.getvalue()


def matches(of: SearchResult | RegionMatches) -> list[object]:
    return [(match.product.sku, match.similarity) for match in of.matches]


def found(result: SearchResult) -> object:
    regions = [(region.box, region.confidence, matches(region)) for region in result.regions]
    return matches(result), regions, result.confidence, result.close


def test_it_finds_what_the_photo_finds_in_another_process_too(app: App) -> None:
    query = Query(picture=two(), k=10, fold=True)
    stored = app.photos.add(two())
    expected = found(app.search.search(query))
    assert len(stored.regions) == 2
    for variant in ({}, {"words": "title"}, {"near_match": 0.1}, {"objects": False}):
        with App(app.settings, choose=choose_region_colours) as other:
            cache = VectorCache()
            picture = other.photos.load(stored.id, cache)
            result = other.search.search(
                replace(query, picture=picture, untrusted=True, **variant), cache
            )
        expected = found(app.search.search(replace(query, **variant)))
        assert found(result) == expected


def test_neither_the_photo_nor_its_address_is_stored(app: App, sql: psycopg.Connection) -> None:
    stored = app.photos.add(two())
    [row] = sql.execute("SELECT preview, vector, objects FROM query_photo").fetchall()
    assert row[0] != two() and row[2]["objects"]
    assert row[2]["alike"] > 0 and row[2]["border"] is not None and row[2]["fifth"] is not None
    assert len(row[1]) == 4 * app.catalog.model().dim
    with Image.open(BytesIO(app.photos.preview(stored.id))) as preview:
        assert (preview.format, preview.size) == ("JPEG", (400, 300))


def test_a_region_is_cut_from_the_preview(app: App) -> None:
    stored, cache = app.photos.add(two()), VectorCache()
    region = (10 / 400, 40 / 300, 130 / 400, 160 / 300)
    picture = app.photos.load(stored.id, cache, region)
    query = Query(picture=picture, region=region, k=1, untrusted=True)
    [match] = app.search.search(query, cache).matches
    assert match.product.sku == f"P{FIRST:04}"
    assert match.similarity == pytest.approx(1.0, abs=0.01)


def test_an_object_of_a_stored_photo_is_searched_by_its_stored_vectors(app: App) -> None:
    stored = app.photos.add(two())
    shown = Query(picture=two(), k=5)
    for region in app.search.search(shown).regions:
        cache = VectorCache()
        picture = app.photos.load(stored.id, cache, region.box)
        query = Query(picture=picture, region=region.box, k=5, untrusted=True)
        assert matches(app.search.search(query, cache)) == matches(region)
        preview = app.photos.preview(stored.id)
        assert app.photos.load(stored.id, cache, region.box, by_object=False) == preview


def test_an_expired_photo_is_unknown_and_deleted_by_the_next(
    app: App, sql: psycopg.Connection
) -> None:
    stored = app.photos.add(two())
    sql.execute("UPDATE query_photo SET expires_at = now()")
    for ask in (lambda: app.photos.load(stored.id, VectorCache()), lambda: app.photos.preview("x")):
        with pytest.raises(UnknownPhoto, match="send the photo again"):
            ask()
    app.photos.add(photo(3))
    assert sql.execute("SELECT count(*) FROM query_photo").fetchone() == (1,)


def test_the_worker_deletes_photos_that_have_expired_though_none_is_added(
    app: App, sql: psycopg.Connection
) -> None:
    app.photos.add(two())
    assert app.events.clean_up().photos == 0
    sql.execute("UPDATE query_photo SET expires_at = now()")
    assert app.events.clean_up().photos == 1
    assert sql.execute("SELECT count(*) FROM query_photo").fetchone() == (0,)


def test_a_photo_of_another_model_is_not_searched_with_its_preview(
    app: App, sql: psycopg.Connection
) -> None:
    stored, cache = app.photos.add(two()), VectorCache()
    sql.execute("UPDATE query_photo SET fingerprint = 'another'")
    with pytest.raises(UnknownPhoto, match="The model has changed"):
        app.photos.load(stored.id, cache)
    sql.execute("UPDATE query_photo SET fingerprint = %s", [app.encoder().fingerprint])
    picture = app.photos.load(stored.id, VectorCache())
    with pytest.raises(BadImage):  # its vectors are in the other cache
        app.search.search(Query(picture=picture, untrusted=True))


def test_no_more_photos_are_stored_than_allowed(settings: Settings) -> None:
    limited = settings.model_copy(update={"max_photos": 1})
    with App(limited, choose=choose_region_colours) as app:
        add(app, numbered(2))
        app.photos.add(photo(0))
        with pytest.raises(Busy, match="LOOKALIKE_MAX_PHOTOS"):
            app.photos.add(photo(1))


def test_shared_photos_leave_half_of_the_places_to_others(settings: Settings) -> None:
    limited = settings.model_copy(update={"max_photos": 4})
    with App(limited, choose=choose_region_colours) as app:
        add(app, numbered(2))
        for seed in range(2):
            app.photos.add(photo(seed), minutes=limited.photo_minutes + 1)
        with pytest.raises(Busy, match="2 photos are shared, half of what LOOKALIKE_MAX_PHOTOS"):
            app.photos.add(photo(2), minutes=limited.photo_minutes + 1)
        app.photos.add(photo(3))


def test_what_is_no_picture_is_not_stored(app: App, sql: psycopg.Connection) -> None:
    with pytest.raises(BadImage):
        app.photos.add(b"no picture")
    assert sql.execute("SELECT count(*) FROM query_photo").fetchone() == (0,)
