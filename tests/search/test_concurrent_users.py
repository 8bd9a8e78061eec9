"""Many concurrent users: each gets the right result or is refused, and the service stays up."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import psycopg
import pytest
from PIL import Image
from pydantic import ValidationError

from app.bootstrap import App
from app.config import MAX_PLACES, Settings
from app.db.engine import EXTRA_SEARCH_CONNECTIONS, GENERAL_CONNECTIONS
from app.encoders.base import EncoderChoice
from app.encoders.batching import MAX_BATCH, SLOTS
from app.encoders.preprocessing import PreparedPicture
from app.errors import BadInput, Busy, DatabaseUnavailable
from app.images.decoding import decode
from app.search.filters import parse
from app.types import Query, SearchResult, Vectors
from support.colours import ColourEncoder, photo
from support.concurrency import run_concurrently, slots_occupied, wait_until
from support.shop import add, numbered

PLACES = 4
PRODUCTS = 60
BOUND = 2 * PLACES + EXTRA_SEARCH_CONNECTIONS + GENERAL_CONNECTIONS


class Gate(ColourEncoder):
    """An encoder that blocks while a test keeps its gate closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.open.set()
        self.batches: list[int] = []

    def encode_prepared(self, prepared: Sequence[PreparedPicture]) -> Vectors:
        self.batches.append(len(prepared))
        assert self.open.wait(300)
        return super().encode_prepared(prepared)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def serve(settings: Settings, gate: Gate) -> Iterator[Callable[..., App]]:
    """Makes services with few places, over a catalogue with an index."""
    made: list[App] = []

    def serve(**changes: object) -> App:
        own = settings.model_copy(
            update={"searches_at_once": PLACES, "search_wait_s": 600} | changes
        )
        app = App(own, choose=lambda model, **_: EncoderChoice(gate, ""))
        made.append(app)
        add(app, numbered(PRODUCTS), brand="Acme")
        app.indexer.rebuild()
        app.search.search(Query(picture=photo(0)))
        gate.batches.clear()
        return app

    yield serve
    gate.open.set()
    for app in made:
        app.close()


def asks(app: App, users: int) -> list[Callable[[], SearchResult]]:
    """Searches of every kind, each of which finds the product of its own number first."""

    def ask(number: int) -> Callable[[], SearchResult]:
        picture = photo(number % PRODUCTS)
        filtered = Query(picture=picture, filters=parse(["brand=Acme"]))
        query = (Query(picture=picture), Query(picture=picture, fold=True), filtered)[number % 3]
        return lambda: app.search.search(query)

    return [ask(number) for number in range(users)]


def sku(number: int) -> str:
    return f"P{number % PRODUCTS:04}"


def connections(sql: psycopg.Connection) -> int:
    row = sql.execute(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    ).fetchone()
    assert row is not None
    return int(row[0])


def idle(app: App) -> bool:
    """Whether no search, connection or waiting caller is left."""
    pools = (app.engine.pool, app.search_engine.pool, app.fast_engine.pool)
    places = (app.admission.running, app.admission.waiting)
    return places == (0, 0) and not any(pool.checkedout() for pool in pools)  # type: ignore[attr-defined]


@pytest.mark.parametrize("users", [64, 200])
def test_concurrent_users_each_get_their_own_result(
    serve: Callable[..., App], sql: psycopg.Connection, users: int
) -> None:
    app = serve()
    found = run_concurrently(asks(app, users))
    assert [each for each in found if isinstance(each, Exception)] == []
    firsts = [each.matches[0].product.sku for each in found if isinstance(each, SearchResult)]
    assert firsts == [sku(number) for number in range(users)]
    assert connections(sql) <= BOUND
    # Samples of queries may still be written in the background.
    wait_until(lambda: idle(app))


class Held:
    """A sandbox in which every picture waits until the test lets it go on."""

    def __init__(self) -> None:
        self.arrived = threading.Semaphore(0)
        self.open = threading.Event()

    def decode(self, data: bytes, *, at_least: int | None = None) -> Image.Image:
        self.arrived.release()
        assert self.open.wait(300)
        return decode(data, at_least=at_least)

    def close(self) -> None:
        self.open.set()


def test_pictures_that_wait_for_a_decoder_take_no_place(serve: Callable[..., App]) -> None:
    app, held, users = serve(search_wait_s=0), Held(), 2 * PLACES
    vars(app)["sandbox"] = held
    queries = [Query(picture=photo(number), untrusted=True) for number in range(users)]
    with ThreadPoolExecutor(users) as pool:
        uploads = [pool.submit(app.search.search, query) for query in queries]
        try:
            for _ in queries:
                assert held.arrived.acquire(timeout=300)
            assert (app.admission.running, app.admission.waiting) == (0, 0)
            assert app.search.search(Query(sku="P0001")).matches
        finally:
            held.open.set()
        wait([*uploads])
        answered = [each.result() for each in uploads if not each.exception()]
        refused = [each for each in uploads if isinstance(each.exception(), Busy)]
    assert len(answered) + len(refused) == users and answered


def test_concurrent_queries_are_encoded_in_one_batch(serve: Callable[..., App], gate: Gate) -> None:
    users = SLOTS + MAX_BATCH
    app = serve(searches_at_once=users)
    gate.open.clear()
    threads = [threading.Thread(target=ask) for ask in asks(app, users)]
    for thread in threads:
        thread.start()
    queue = app.search._encoder._queues.get(gate).pictures
    wait_until(lambda: len(queue._waiting) == MAX_BATCH)
    gate.open.set()
    for thread in threads:
        thread.join()
    assert gate.batches[:SLOTS] == [1] * SLOTS
    assert 1 < max(gate.batches) <= MAX_BATCH and sum(gate.batches) == users
    counted = app.metrics.registry.get_sample_value("lookalike_encode_batch_pictures_sum")
    assert counted == users + 1, "and the one that opened the index"


def test_a_bad_picture_in_a_batch_fails_only_its_own_query(
    serve: Callable[..., App],
) -> None:
    app = serve()
    good = asks(app, 20)
    found = run_concurrently([*good, lambda: app.search.search(Query(picture=b"no picture"))])
    assert isinstance(found[-1], BadInput)
    assert not any(isinstance(each, Exception) for each in found[:-1])


def test_searches_beyond_capacity_are_refused_and_the_service_recovers(
    serve: Callable[..., App], gate: Gate
) -> None:
    app = serve(search_wait_s=0.1)
    with slots_occupied(app.admission):
        found = run_concurrently(asks(app, 30))
        assert all(isinstance(each, Busy) for each in found)
        assert app.admission.waiting == 0
    value = app.metrics.registry.get_sample_value
    assert value("lookalike_searches_refused_total") == 30
    assert gate.batches == [], "what is refused was not begun"
    assert idle(app)
    found = run_concurrently(asks(app, PLACES))
    assert not any(isinstance(each, Exception) for each in found) and idle(app)


def test_a_stuck_encoder_delays_other_searches_for_a_bounded_time(
    serve: Callable[..., App], gate: Gate
) -> None:
    app = serve(search_wait_s=0.2)
    gate.open.clear()
    stuck = [threading.Thread(target=ask) for ask in asks(app, PLACES)]
    for thread in stuck:
        thread.start()
    wait_until(lambda: app.admission.running == PLACES)
    found = run_concurrently(asks(app, 10))
    assert all(isinstance(each, Busy) for each in found)
    gate.open.set()
    for thread in stuck:
        thread.join()
    assert idle(app) and app.search.search(Query(picture=photo(7))).matches[0].product.sku == sku(7)


def test_a_plan_reports_the_time_waited(serve: Callable[..., App]) -> None:
    app = serve()
    told: list[SearchResult] = []
    thread = threading.Thread(
        target=lambda: told.append(app.search.search(Query(picture=photo(3))))
    )
    with slots_occupied(app.admission):
        thread.start()
        wait_until(lambda: app.admission.waiting)
        assert app.metrics.registry.get_sample_value("lookalike_searches_waiting") == 1
        assert app.metrics.registry.get_sample_value("lookalike_searches_running") == PLACES
        threading.Event().wait(0.02)
    thread.join()
    [result] = told
    assert 20 <= result.plan.ms["wait"] <= result.plan.ms["total"]
    assert "wait" not in app.search.search(Query(picture=photo(3))).plan.ms


def test_an_invalid_query_is_refused_without_waiting(serve: Callable[..., App]) -> None:
    app = serve()
    with slots_occupied(app.admission), pytest.raises(BadInput):
        app.search.search(Query(k=0, sku="x"))


def test_searches_have_a_connection_pool_of_their_own(serve: Callable[..., App]) -> None:
    """However many requests for products, duplicates and health run meanwhile."""
    app = serve()
    held = [app.engine.connect() for _ in range(GENERAL_CONNECTIONS)]
    try:
        found = run_concurrently([lambda: app.search.search(Query(sku="P0001"))] * 20)
    finally:
        for connection in held:
            connection.close()
    assert not any(isinstance(each, Exception) for each in found)


def test_other_work_waits_for_a_connection_and_then_fails_with_a_message(
    serve: Callable[..., App], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = serve()
    monkeypatch.setattr(app.engine.pool, "_timeout", 0.1)
    held = [app.engine.connect() for _ in range(GENERAL_CONNECTIONS)]
    try:
        with pytest.raises(DatabaseUnavailable, match=r"All connections .* are busy"):
            app.catalog.product("P0001")
    finally:
        for connection in held:
            connection.close()
    assert app.catalog.product("P0001").pictures


def test_places_follow_the_cores_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, places in ((1, 4), (2, 8), (64, MAX_PLACES)):
        monkeypatch.setattr("app.config._cores", lambda cores=cores: cores)
        assert Settings().places == places
        assert Settings(searches_at_once=3).places == 3
    assert 2 * MAX_PLACES + EXTRA_SEARCH_CONNECTIONS + GENERAL_CONNECTIONS < 97, (
        "what PostgreSQL lets in by default"
    )


def test_the_wait_for_admission_must_be_bounded() -> None:
    """Python's locks cannot wait that long, and no caller should."""
    for wait_s in (math.inf, 1e10, -1):
        with pytest.raises(ValidationError, match="search_wait_s"):
            Settings(search_wait_s=wait_s)
