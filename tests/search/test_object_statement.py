"""A photo and its objects are searched by one statement as by several, and in few statements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.index import faiss_index
from app.index.faiss_index import AnnIndex
from app.search import page_budget, regions
from app.search.matches import REGION_MATCHES
from app.search.query_encoder import QueryEncoder
from app.search.regions import ObjectLimits
from app.search.vector_cache import QueryPicture, VectorCache
from app.search.windows import Windows, nominating, window_grid
from app.types import Filters, Query, Region, SearchResult, Vectors
from support.random_shop import CLUSTERS, picture_vector, random_query, refill
from support.recall_queries import few_queries
from support.region_colours import choose_region_colours
from support.scenes import FIRST, SECOND, first_skus, scene, sku, two
from support.shop import add, numbered
from support.statements import Slow, in_statements, told

CATALOGUES = 4
QUERIES = 4
PAGES = 2


@pytest.fixture
def app(settings: Settings) -> Iterator[App]:
    """All services with an encoder that has a feature map; nothing is written in the background."""
    without_samples = settings.model_copy(update={"sample_queries": False})
    with App(without_samples, choose=choose_region_colours) as app:
        app.initialise()
        yield app


class Drawn:
    """Random windows of photos, whose vectors are those of pictures of the catalogue or near
    them."""

    def __init__(self, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
        self._dim = app.encoder().dim
        self._fingerprint = app.encoder().fingerprint
        self.seed = 0
        monkeypatch.setattr(QueryEncoder, "map_windows", self._windows)
        monkeypatch.setattr(QueryEncoder, "encode_regions", self._crops)

    def photo(self, random: Random, cache: VectorCache) -> bytes:
        """A photo, whose vector as a whole is in the cache."""
        data = b"photo %d" % self.seed
        whole = picture_vector(random.randrange(4 * CLUSTERS), self._dim)
        if random.random() < 0.7:
            away = np.random.default_rng(self.seed).normal(size=self._dim)
            whole = np.asarray(whole + 2 * away / np.linalg.norm(away), np.float32)
            whole /= np.linalg.norm(whole)
        cache.put({QueryPicture(data): whole}, self._fingerprint)
        return data

    def _rows(self, count: int) -> Vectors:
        random = Random(self.seed)
        few = random.sample(range(4 * CLUSTERS), 6)
        return np.stack([picture_vector(random.choice(few), self._dim) for _ in range(count)])

    def _windows(self, *_: Any) -> Windows:
        grid = window_grid((40, 30))
        return Windows(grid, self._rows(len(grid)), 20.0)

    def _crops(self, _query: Query, boxes: list[Region], _cache: VectorCache) -> Vectors:
        return self._rows(len(boxes))[::-1]


def all_told(result: SearchResult) -> tuple[object, ...]:
    """What both ways tell, with the regions."""
    own = [
        (each.box, [replace(match, means=None) for match in each.matches])
        for each in result.regions
    ]
    return *told(result), own


def test_one_statement_answers_random_photos_with_objects_as_several_do(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fewer at first, so that pages take further retrievals.
    monkeypatch.setattr(page_budget, "MIN_DEDUPLICATED", 4)
    slow, drawn = Slow(app), Drawn(app, monkeypatch)
    by_one, by_several, with_objects, leading, alone_by_one = 0, 0, 0, 0, 0
    for seed in range(CATALOGUES):
        random = Random(1000 + seed)
        skus = refill(app, sql, random)
        for number in range(QUERIES):
            drawn.seed = QUERIES * seed + number
            lead = random.choice((None, -2.0, 0.2, 0.4, 2.1))
            limits = ObjectLimits(
                sure=random.choice((0.9, 1.1)), lead=lead, gain=random.choice((0.0, 0.5)), exact=2,
                most=random.choice((1, 2, 4)), merged=random.choice((1, 2)),
            )  # fmt: skip
            monkeypatch.setattr(regions, "LIMITS", {("", ""): limits})
            caches = VectorCache(), VectorCache()
            for cache in caches:
                photo = drawn.photo(Random(drawn.seed), cache)
            query = replace(
                random_query(app, random, skus), sku=None, vector=None, model_id=None, picture=photo
            )
            for _ in range(PAGES):
                expected = in_statements(app, query, monkeypatch, caches[0])
                slow.took()
                found = app.search.search(query, caches[1])
                by_one, by_several = by_one + 1 - (took := slow.took()), by_several + took
                assert all_told(found) == all_told(expected), (seed, query)
                kept = [
                    cache.get_objects(QueryPicture(photo), app.encoder().fingerprint)
                    for cache in caches
                ]
                assert repr(kept[0]) == repr(kept[1])
                with_objects += bool(found.regions)
                leading += kept[0] is not None and kept[0].leads
                for region in found.regions:  # searched alone, an object has the matches it shows
                    single = replace(query, region=region.box, k=max(query.k, REGION_MATCHES))
                    alone = in_statements(app, single, monkeypatch, caches[0])
                    slow.took()
                    again = app.search.search(single, caches[1])
                    alone_by_one += not slow.took()
                    assert all_told(again) == all_told(alone), (seed, query)
                    first = [each.product_id for each in region.matches[:1]]
                    assert [each.product_id for each in again.matches[:1]] == first
                query = replace(query, shown=(*query.shown, *found.shown))
    assert alone_by_one > CATALOGUES
    assert by_one > by_several and with_objects > CATALOGUES and leading > CATALOGUES // 2


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that are sent, and each search of an index."""
    sent: list[str] = []
    execute, search = psycopg.Cursor.execute, AnnIndex.search

    def counting(cursor: Any, sql: Any, *values: Any, **options: Any) -> Any:
        sent.append("statement")
        return execute(cursor, sql, *values, **options)

    def searching(index: AnnIndex, *values: Any, **options: Any) -> Any:
        sent.append("index")
        return search(index, *values, **options)

    monkeypatch.setattr(psycopg.Cursor, "execute", counting)
    monkeypatch.setattr(AnnIndex, "search", searching)
    return sent


@pytest.fixture
def forty(app: App) -> App:
    """Forty products whose index has answered once."""
    add(app, numbered(40))
    app.indexer.rebuild()
    app.search.search(Query(picture=two(), k=5, fold=True))
    return app


@pytest.mark.parametrize("lead", [None, -2.0, 2.1])
def test_a_photo_with_objects_takes_three_statements_and_one_once_they_are_known(
    forty: App, sent: list[str], monkeypatch: pytest.MonkeyPatch, lead: float | None
) -> None:
    monkeypatch.setattr(regions, "LIMITS", {("", ""): ObjectLimits(lead=lead, exact=2)})
    cache, query = VectorCache(), Query(picture=two(), k=12, fold=True)
    forty.search.search(query)  # the statement is prepared, and the calibrations are read
    sent.clear()
    result = forty.search.search(query, cache)
    assert first_skus(result) == {sku(FIRST), sku(SECOND)} and len(result.matches) == 12
    assert sent == ["index", "statement"] * 3  # the whole, the windows, all together
    sent.clear()
    assert forty.search.search(query, cache).matches == result.matches
    assert sent == ["index", "statement"]
    sent.clear()
    box = result.regions[1].box
    chosen = forty.search.search(replace(query, region=box), cache)
    assert chosen.matches[:5] == result.regions[1].matches
    assert sent == ["index", "statement"]
    sent.clear()
    second = forty.search.search(replace(query, shown=result.shown), cache)
    assert not set(second.shown) & set(result.shown)
    assert sorted(sent) == ["index", "statement", "statement"]  # the products shown before


def test_a_filter_beside_a_photo_with_objects_takes_few_statements(
    forty: App, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regions, "LIMITS", {("", ""): ObjectLimits(lead=-2.0, exact=2)})
    products = {sku(number) for number in range(0, 40, 2)} | {sku(FIRST), sku(SECOND)}
    filters = replace(Query(picture=b"").filters, columns={"sku": tuple(sorted(products))})
    query = Query(picture=two(), k=3, fold=True, filters=filters)
    for _ in range(3):  # what passes is read
        expected = forty.search.search(query)
    sent.clear()
    result = forty.search.search(query)
    assert result.regions == expected.regions and first_skus(result) == {sku(FIRST), sku(SECOND)}
    # The whole under the filter, the whole among all, the windows, the lead, all together.
    assert sent == ["index", "statement"] * 5


def test_objects_of_a_changed_catalogue_are_found_in_few_statements(
    forty: App, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add(forty, {"NEW": [77]})
    query = Query(picture=scene((77, (30, 60, 180, 210))), k=3, fold=True)
    forty.search.search(query)
    sent.clear()
    result = forty.search.search(query)
    assert "NEW" in first_skus(result) and result.plan.delta_rows == 1
    assert sent == ["index", "statement"] * 3
    expected = in_statements(forty, query, monkeypatch)
    assert all_told(result) == all_told(expected)


def test_a_photo_with_objects_is_answered_by_several_after_a_new_build_and_too_many_changes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = settings.model_copy(update={"sample_queries": False, "max_delta_rows": 2})
    with App(few, choose=choose_region_colours) as app:
        add(app, numbered(40))
        app.indexer.rebuild()
        slow, cache, query = Slow(app), VectorCache(), Query(picture=two(), k=12, fold=True)
        expected = all_told(app.search.search(query, cache))
        slow.took()
        assert all_told(app.search.search(query, cache)) == expected and not slow.took()
        app.indexer.rebuild()
        assert all_told(app.search.search(query, cache)) == expected and slow.took()
        assert all_told(app.search.search(query, cache)) == expected and not slow.took()
        add(app, {f"NEW{number}": [number] for number in (100, 101, 102)})
        changed = app.search.search(query, cache)
        assert slow.took() and changed.plan.reason_code == "large_delta"
        assert first_skus(changed) == {sku(FIRST), sku(SECOND)}
        assert all_told(changed) == all_told(in_statements(app, query, monkeypatch, cache))


def test_a_photo_that_was_not_compared_because_of_changes_is_searched_for_objects_after_a_build(
    settings: Settings,
) -> None:
    few = settings.model_copy(
        update={"sample_queries": False, "max_delta_rows": 2, "exact_rows": 5}
    )
    with App(few, choose=choose_region_colours) as app:
        add(app, numbered(40))
        app.indexer.rebuild()
        add(app, {f"NEW{number}": [number] for number in (100, 101, 102)})
        cache, query = VectorCache(), Query(picture=two(), k=12)
        assert app.search.search(query, cache).plan.reason_code == "large_delta"
        assert not app.search.search(query, cache).regions
        app.indexer.rebuild()
        assert first_skus(app.search.search(query, cache)) == {sku(FIRST), sku(SECOND)}


@pytest.mark.parametrize("filtered", [False, True])
def test_a_compressed_index_may_nominate_many_pictures_for_each_vector(
    app: App, monkeypatch: pytest.MonkeyPatch, filtered: bool
) -> None:
    monkeypatch.setattr(faiss_index, "FLAT_ROWS", 100)
    few_queries(monkeypatch)
    add(app, numbered(400), category="shirt")
    add(app, numbered(300, first=400), category="shoe")
    assert app.indexer.rebuild().kind == "rabitq"
    filters = Filters(columns={"category": ("shirt",)}) if filtered else Filters()
    # Of so many random photos, a product is only near to a window that shows it alone.
    windows = np.array(window_grid((400, 300)))[nominating(window_grid((400, 300)))]
    boxes = np.round(windows * (400, 300, 400, 300)).astype(int).tolist()
    left = next(box for box in boxes if box[2] < 200)
    right = next(box for box in boxes if box[0] > 200)
    query = Query(picture=scene((FIRST, left), (SECOND, right)), k=3, filters=filters)
    expected = in_statements(app, query, monkeypatch)
    for _ in range(3):  # what passes is read
        app.search.search(query)
    # As many as an index of a large catalogue, of which few are near.
    monkeypatch.setattr(AnnIndex, "pool_behind", lambda *_: 200)
    slow = Slow(app)
    result = app.search.search(query)
    assert not slow.took() and len(result.regions) == 2
    assert first_skus(result) == {sku(FIRST), sku(SECOND)}
    assert all_told(result) == all_told(expected)
