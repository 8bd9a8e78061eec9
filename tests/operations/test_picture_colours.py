"""The colours of pictures are written with them, and computed where they are missing."""

from __future__ import annotations

from pathlib import Path

import psycopg

from app.bootstrap import App
from app.db.queries import picture_colours as rows
from app.images.basic_colours import NAMES, VERSION
from app.images.colours import colours_of_thumbnail
from app.operations.picture_colours import ColourUpkeep, fill
from support.shop import add, numbered
from support.sources import ingest, write_csv, write_photos

STORED = "SELECT picture_id, version, main, main_share, shares FROM picture_colours ORDER BY 1"


def of_thumbnails(sql: psycopg.Connection) -> list[tuple[object, ...]]:
    """What the table has to have."""
    found = sql.execute("SELECT id, thumbnail FROM picture ORDER BY id").fetchall()
    colours = [(id_, colours_of_thumbnail(thumbnail)) for id_, thumbnail in found]
    return [(id_, VERSION, each.main, max(each.shares), each.shares) for id_, each in colours]


def test_an_ingest_and_an_undo_write_the_colours_with_the_picture(
    app: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    """The same that are computed of stored pictures."""
    write_photos(tmp_path, range(5))
    source = [{"sku": f"P{n}", "title": "x", "images": f"{n}.png"} for n in range(5)]
    ingest(app, write_csv(tmp_path / "c.csv", source))
    stored = sql.execute(STORED).fetchall()
    assert stored == of_thumbnails(sql) and len(stored) == 5
    app.catalog.delete(["P1", "P2"])
    assert len(sql.execute(STORED).fetchall()) == 3
    [(run,)] = sql.execute("SELECT max(id) FROM ingest_run").fetchall()
    app.catalog.undo(run)
    stored = sql.execute(STORED).fetchall()
    assert stored == of_thumbnails(sql) and len(stored) == 5


def test_colours_that_are_missing_or_outdated_are_computed(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, numbered(6))
    assert sql.execute(STORED).fetchall() == []
    assert fill(app.engine) == 6
    assert sql.execute(STORED).fetchall() == of_thumbnails(sql)
    assert fill(app.engine) == 0
    sql.execute("UPDATE picture_colours SET version = 0, main_share = 0 WHERE picture_id % 2 = 0")
    sql.execute("UPDATE picture SET thumbnail = 'damaged' WHERE id = 1")
    sql.execute("DELETE FROM picture_colours WHERE picture_id = 1")
    assert fill(app.engine) == 4
    assert fill(app.engine) == 0, "what cannot be read is not tried again"
    assert sql.execute(STORED).fetchall() == of_thumbnails(sql)
    with app.engine.connect() as connection:
        known = rows.shares(connection, VERSION, [1, 2, 3, 999])
        later = rows.shares(connection, VERSION + 1, [1, 2, 3])
    assert sorted(known) == [2, 3] and later == {}
    assert abs(float(known[2].sum()) - 1) < 0.05 and known[2].shape == (len(NAMES),)


def test_a_picture_that_is_deleted_meanwhile_is_left_out(app: App, sql: psycopg.Connection) -> None:
    add(app, numbered(3))
    colours = colours_of_thumbnail(b"")
    with app.engine.begin() as connection:
        rows.store(connection, {1: colours, 99: colours})
    assert [row[0] for row in sql.execute(STORED).fetchall()] == [1]


def test_the_worker_computes_what_is_missing(app: App, sql: psycopg.Connection) -> None:
    add(app, numbered(3))
    upkeep = ColourUpkeep(app.engine)
    assert upkeep._fill() == ""
    assert sql.execute(STORED).fetchall() == of_thumbnails(sql)
