"""CatalogService: what a write and a delete change, and what they do not change."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psycopg
import pytest

from app.bootstrap import App
from app.catalog.batch_write import (
    ROWS_PER_STATEMENT,
    Batch,
    BatchChange,
    PicturesMissing,
)
from app.catalog.entries import ProductEntry
from app.config import Settings
from app.db import notifications
from app.db.locks import LockKey
from app.db.queries import models
from app.errors import BadInput, ModelMismatch, NoModel, SchemaMismatch, UnknownProduct
from app.images.decoding import decode
from app.images.thumbnails import thumbnail
from app.models.backfill import store
from app.operations.migrate import migrate
from app.types import Model, PictureData, PictureRef, Product
from support.colours import ColourEncoder, photo
from support.concurrency import wait_until
from support.shop import add, sha
from support.sources import contents, versions


def entry(sku: str, *seeds: int, **fields: object) -> ProductEntry:
    product = Product(sku, title=f"title {sku}", **fields)  # type: ignore[arg-type]
    return ProductEntry(product, tuple(PictureRef(sha(seed), f"{seed}.png") for seed in seeds))


def batch(entries: Sequence[ProductEntry], *seeds: int) -> Batch:
    """A batch with the pictures and vectors of these seeds."""
    pictures = {seed: decode(photo(seed)) for seed in seeds}
    rows = ColourEncoder().encode_pictures(list(pictures.values()))
    return Batch(
        entries,
        {sha(n): PictureData(sha(n), *p.size, thumbnail(p)) for n, p in pictures.items()},
        {sha(n): row for n, row in zip(seeds, rows, strict=True)},
    )


def skus(sql: psycopg.Connection) -> list[str]:
    return [row[0] for row in sql.execute("SELECT sku FROM product ORDER BY sku")]


def hexes(sql: psycopg.Connection, table: str) -> set[str]:
    column = {"picture": 0, "embedding": 1}[table]
    return {row[column] for row in contents(sql)[table]}


def test_a_write_reports_the_outcome_of_each_entry(app: App) -> None:
    model = app.catalog.model()
    app.catalog.write(batch([entry("A", 1), entry("B", 2)], 1, 2), model)
    again = [entry("A", 1), entry("B", 2, year=2020), entry("C", 1)]
    assert app.catalog.write(batch(again), model) == {
        "A": BatchChange.UNCHANGED,
        "B": BatchChange.UPDATED,
        "C": BatchChange.ADDED,
    }


def test_an_updated_product_keeps_its_id_and_its_embeddings(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, {"A": [1]})
    before = sql.execute("SELECT id FROM product").fetchall()
    embeddings = versions(sql)["embedding"]
    app.catalog.write(batch([entry("A", 1, colour="red")]), app.catalog.model())
    assert sql.execute("SELECT id FROM product").fetchall() == before
    assert versions(sql)["embedding"] == embeddings


def test_a_stored_picture_keeps_its_embedding_when_a_batch_has_another_vector(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, {"A": [1]})
    before = versions(sql)["embedding"]
    brought = batch([entry("B", 1)], 1)
    app.catalog.write(brought, app.catalog.model())
    assert versions(sql)["embedding"] == before and len(hexes(sql, "picture")) == 1


def test_a_batch_with_an_unknown_picture_writes_nothing(app: App, sql: psycopg.Connection) -> None:
    with pytest.raises(PicturesMissing):
        app.catalog.write(batch([entry("A", 1), entry("B", 2)], 1), app.catalog.model())
    assert skus(sql) == [] and hexes(sql, "picture") == set()


def test_a_single_missing_picture_refuses_the_batch(app: App, sql: psycopg.Connection) -> None:
    add(app, {"A": [1]})
    with pytest.raises(PicturesMissing):
        app.catalog.write(batch([entry("B", 1), entry("C", 2)]), app.catalog.model())
    assert skus(sql) == ["A"]


def test_a_product_that_only_changes_its_pictures_is_updated(
    app: App, sql: psycopg.Connection
) -> None:
    model = app.catalog.model()
    app.catalog.write(batch([entry("A", 1)], 1), model)
    assert app.catalog.write(batch([entry("A", 2)], 2), model) == {"A": BatchChange.UPDATED}
    assert hexes(sql, "picture") == hexes(sql, "embedding") == {sha(2).hex()}


def test_a_picture_without_an_embedding_is_missing(app: App, sql: psycopg.Connection) -> None:
    add(app, {"A": [1]})
    sql.execute("DELETE FROM embedding")
    with pytest.raises(PicturesMissing):
        app.catalog.write(batch([entry("A", 1)]), app.catalog.model())
    app.catalog.write(batch([entry("A", 1)], 1), app.catalog.model())
    assert hexes(sql, "embedding") == {sha(1).hex()}


def test_a_write_for_a_model_that_is_not_maintained_is_refused(
    app: App, sql: psycopg.Connection
) -> None:
    other = Model(99, "other", "1", 49, "f")
    with pytest.raises(ModelMismatch, match="other is not kept up to date"):
        app.catalog.write(batch([entry("A", 1)], 1), other)
    assert skus(sql) == []


def test_a_vector_of_another_dimension_is_never_stored(app: App, sql: psycopg.Connection) -> None:
    wrong = Batch([entry("A", 1)], batch([], 1).pictures, {sha(1): np.ones(7, np.float32)})
    with pytest.raises(ValueError):
        app.catalog.write(wrong, app.catalog.model())
    assert skus(sql) == []


def test_deleting_sweeps_pictures_that_no_other_product_shows(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, {"A": [1, 2], "B": [2, 3]})
    assert app.catalog.delete(["A"]) == 1
    assert skus(sql) == ["B"]
    assert hexes(sql, "picture") == hexes(sql, "embedding") == {sha(2).hex(), sha(3).hex()}


def test_deleting_all_products_of_a_picture_sweeps_it(app: App, sql: psycopg.Connection) -> None:
    add(app, {"A": [1], "B": [1], "C": [2]})
    assert app.catalog.delete(["A", "B"]) == 2
    assert hexes(sql, "embedding") == {sha(2).hex()}


def test_deleting_an_unknown_sku_names_it_and_deletes_nothing(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, {"A": [1]})
    with pytest.raises(UnknownProduct, match=r"sku X, Y\."):
        app.catalog.delete(["A", "X", "Y"])
    assert skus(sql) == ["A"]


@pytest.mark.parametrize("sku", ["a\0b", "\udcff", "\ud800"])
def test_deleting_a_sku_that_is_not_valid_text_is_refused(
    app: App, sql: psycopg.Connection, sku: str
) -> None:
    add(app, {"A": [1]})
    with pytest.raises(BadInput, match="The sku"):
        app.catalog.delete(["A", sku], missing_ok=True)
    assert skus(sql) == ["A"]


def test_deleting_may_ignore_missing_products(app: App, sql: psycopg.Connection) -> None:
    add(app, {"A": [1]})
    assert app.catalog.delete(["A", "X"], missing_ok=True) == 1 and skus(sql) == []


def test_a_sweep_waits_for_a_writer_that_links_the_picture(
    app: App, sql: psycopg.Connection, database_url: str
) -> None:
    add(app, {"A": [1]})
    with psycopg.connect(database_url) as writer:
        writer.execute("SELECT pg_advisory_xact_lock(%s)", [LockKey.CATALOG_WRITE.value])
        writer.execute("INSERT INTO product (sku) VALUES ('B')")
        writer.execute(
            "INSERT INTO product_picture (product_id, picture_id, position, uri)"
            " SELECT product.id, picture.id, 0, 'b' FROM product, picture WHERE sku = 'B'"
        )
        deleting = threading.Thread(target=app.catalog.delete, args=[["A"]])
        deleting.start()
        deleting.join(0.3)
        assert deleting.is_alive()
        writer.commit()
        deleting.join(300)
    assert skus(sql) == ["B"] and hexes(sql, "embedding") == {sha(1).hex()}


def test_a_sweep_waits_for_sql_that_links_the_picture_without_the_lock_of_writers(
    app: App, sql: psycopg.Connection, database_url: str
) -> None:
    add(app, {"A": [1]})
    with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("INSERT INTO product (sku) VALUES ('B')")
        other.execute(
            "INSERT INTO product_picture (product_id, picture_id, position, uri)"
            " SELECT product.id, picture.id, 0, 'b' FROM product, picture WHERE sku = 'B'"
        )
        deleting = pool.submit(app.catalog.delete, ["A"])
        waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"
        wait_until(lambda: deleting.done() or sql.execute(waiting).fetchone() == (True,))
        other.commit()
        deleting.result(300)
    assert skus(sql) == ["B"] and hexes(sql, "embedding") == {sha(1).hex()}


def test_a_batch_larger_than_a_statement_is_written_completely(
    app: App, sql: psycopg.Connection
) -> None:
    model, many = app.catalog.model(), 2 * ROWS_PER_STATEMENT + 3
    changes = app.catalog.write(
        batch([entry(f"P{n:04}", n) for n in reversed(range(many))], *range(many)), model
    )
    assert list(changes.values()) == [BatchChange.ADDED] * many
    shown = sql.execute(
        "SELECT sku, uri, sha256 FROM product JOIN product_picture ON product_id = product.id"
        " JOIN picture ON picture_id = picture.id JOIN embedding USING (picture_id) ORDER BY sku"
    ).fetchall()
    assert shown == [(f"P{n:04}", f"{n}.png", sha(n)) for n in range(many)]


@pytest.mark.parametrize("distance", [1, ROWS_PER_STATEMENT, ROWS_PER_STATEMENT + 5])
def test_a_repeated_sku_in_a_batch_is_an_error_and_nothing_is_written(
    app: App, sql: psycopg.Connection, distance: int
) -> None:
    others = [entry(f"B{n:04}", 1) for n in range(distance - 1)]
    twice = [entry("A", 1), *others, entry("A", 1, year=2020)]
    with pytest.raises(BadInput, match="A is in the batch twice"):
        app.catalog.write(batch(twice, 1), app.catalog.model())
    assert skus(sql) == []


def test_a_writer_does_not_wait_for_locks_on_the_embeddings_of_another_model(
    app: App, sql: psycopg.Connection, database_url: str
) -> None:
    add(app, {"A": [1], "B": [2]})
    model = app.catalog.model()
    with app.engine.begin() as connection:
        other = models.register(connection, "other", "1", 49, "other")
    done: list[object] = []

    def write() -> None:
        for year in range(2000, 2008):  # enough executions for cached plans
            done.append(app.catalog.write(batch([entry("A", 1, 2, year=year)], 2), model))
            ids = [id_ for (id_,) in sql.execute("SELECT id FROM picture")]
            done.append(
                store(app.engine, model, {id_: np.eye(49, dtype=np.float32)[0] for id_ in ids})
            )
            done.append(app.catalog.known([sha(1)], model))

    with psycopg.connect(database_url) as holder:
        holder.execute(f"LOCK TABLE embedding_m{other.id}")  # type: ignore[call-overload]
        writing = threading.Thread(target=write, daemon=True)
        writing.start()
        writing.join(300)
        assert len(done) == 24


def test_a_write_and_a_delete_notify_listeners_once_and_no_change_does_not(
    app: App, sql: psycopg.Connection
) -> None:
    sql.execute(f"LISTEN {notifications.CHANNEL}")
    model, heard = app.catalog.model(), []
    for change in (
        lambda: app.catalog.write(batch([entry("A", 1), entry("B", 2)], 1, 2), model),
        lambda: app.catalog.write(batch([entry("A", 1), entry("B", 2)]), model),
        lambda: app.catalog.delete(["A"]),
        lambda: app.catalog.delete(["A"], missing_ok=True),
    ):
        change()
        heard.append(len(list(sql.notifies(timeout=0.2))))
    assert heard == [1, 0, 1, 0]


@pytest.mark.parametrize("usual", ["read committed", "repeatable read"])
def test_a_writer_sees_commits_made_while_it_waited_for_the_lock(
    app: App, sql: psycopg.Connection, database_url: str, usual: str
) -> None:
    add(app, {"A": [1]})
    sql.execute(f"ALTER ROLE CURRENT_USER IN DATABASE {sql.info.dbname}"  # type: ignore[call-overload]
                f" SET default_transaction_isolation = '{usual}'")  # fmt: skip
    app.engine.dispose()  # so that new connections use it
    changes: list[dict[str, BatchChange]] = []

    def write() -> None:
        changes.append(app.catalog.write(batch([entry("A", 1, year=2020)]), app.catalog.model()))

    with psycopg.connect(database_url) as before:
        before.execute("SELECT pg_advisory_xact_lock(%s)", [LockKey.CATALOG_WRITE.value])
        before.execute("UPDATE product SET year = 2020")
        writing = threading.Thread(target=write)
        writing.start()
        writing.join(0.3)
        assert writing.is_alive()
        before.commit()
        writing.join(300)
    assert changes == [{"A": BatchChange.UNCHANGED}]


def test_the_error_for_a_database_without_a_model_advises_what_to_do(
    empty_url: str, settings: Settings
) -> None:
    with App(settings.model_copy(update={"database_url": empty_url})) as app:
        with pytest.raises(SchemaMismatch, match="lookalike init"):
            app.catalog.model()
        migrate(app.engine)
        with pytest.raises(NoModel, match="lookalike init"):
            app.catalog.model()
