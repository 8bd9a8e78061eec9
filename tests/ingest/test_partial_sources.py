"""A source changes only what it has, and a run that would take or delete much stops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psycopg
import pytest

from app.bootstrap import App
from app.errors import BadInput
from ingest import prune_limit
from ingest.load import LoadOptions, preview_load
from ingest.preview import MAX_SHOWN, Preview
from ingest.prune_limit import PruneLimit
from support.colours import photo
from support.sources import Row, contents, ingest, versions, write_csv, write_photos

FULL = {
    "title": "Coat", "brand": "Kestrel", "category": "coat", "colour": "red", "year": "2020",
    "price": "9.9900", "currency": "EUR", "size": "XL", "fabric": "wool",
}  # fmt: skip


SKUS = "ABCDEFGHIJKL"


@pytest.fixture
def shop(app: App, tmp_path: Path) -> App:
    """Twelve products with every field filled, each with one picture `<n>.png`."""
    write_photos(tmp_path, range(12))
    rows = [{"sku": sku, **FULL, "images": f"{n}.png"} for n, sku in enumerate(SKUS)]
    ingest(app, write_csv(tmp_path / "full.csv", rows))
    return app


def load(app: App, folder: Path, rows: Sequence[Row], **options: object) -> tuple[int, ...]:
    report = ingest(app, write_csv(folder / "c.csv", rows), **options)
    return report.added, report.updated, report.unchanged, report.rejected


def plan(app: App, folder: Path, rows: Sequence[Row], **options: object) -> Preview:
    source = write_csv(folder / "c.csv", rows)
    return preview_load(
        app.engine, app.catalog, app.encoders, app.limits, source,
        LoadOptions(**options),  # type: ignore[arg-type]
    )  # fmt: skip


def fields(sql: psycopg.Connection, sku: str) -> dict[str, object]:
    row = sql.execute(
        """SELECT title, brand, category, colour, year, price, currency, attributes, identity_key,
            (SELECT array_agg(uri) FROM product_picture WHERE product_id = id)
        FROM product WHERE sku = %s""",
        [sku],
    ).fetchone()
    assert row is not None
    names = (*list(FULL)[:7], "attributes", "identity_key", "images")
    return dict(zip(names, row, strict=True))


def test_a_column_that_is_absent_keeps_what_is_stored(
    shop: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    before, pictures = fields(sql, "A"), versions(sql)
    assert load(shop, tmp_path, [{"sku": "A", "price": "1"}]) == (0, 1, 0, 0)
    after = fields(sql, "A")
    assert str(after.pop("price")) == "1.0000" and before.pop("price")
    assert after == before
    for table in ("picture", "product_picture", "embedding"):
        assert versions(sql)[table] == pictures[table]


def test_an_empty_field_clears_what_is_stored(
    shop: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    rows = [{"sku": "A", "size": ""}, *({"sku": sku, "size": "L"} for sku in SKUS[1:])]
    assert load(shop, tmp_path, rows) == (0, 12, 0, 0)
    assert fields(sql, "A")["attributes"] == {"fabric": "wool"}
    assert fields(sql, "B")["attributes"] == {"fabric": "wool", "size": "L"}


def test_the_identity_key_follows_the_kept_title_and_the_new_brand(
    shop: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    load(shop, tmp_path, [{"sku": "A", "brand": "Heron"}])
    load(shop, tmp_path, [{"sku": "whole", **FULL, "brand": "Heron"}])
    assert fields(sql, "A")["identity_key"] == fields(sql, "whole")["identity_key"]
    assert fields(sql, "A")["identity_key"] != fields(sql, "B")["identity_key"]


def test_a_partial_row_that_changes_nothing_writes_nothing(
    shop: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    before = versions(sql)
    assert load(shop, tmp_path, [{"sku": "A", "price": "9.99", "size": "XL"}]) == (0, 0, 1, 0)
    assert versions(sql) == before


def test_a_folder_changes_only_the_pictures_of_products_that_exist(
    shop: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    before = fields(sql, "A")
    folder = tmp_path / "photos" / "hats"
    folder.mkdir(parents=True)
    for name in ("A.png", "new.png"):
        (folder / name).write_bytes(photo(90 + len(name)))
    report = ingest(shop, tmp_path / "photos")
    assert (report.added, report.updated) == (1, 1)
    assert fields(sql, "A") == {**before, "images": ["hats/A.png"]}
    assert fields(sql, "new")["category"] == "hats"


def test_a_product_keeps_a_picture_that_can_no_longer_be_read(
    shop: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    write_photos(tmp_path, [20, 21, 22])
    row = {"sku": "A", "images": "20.png|21.png|0.png"}
    load(shop, tmp_path, [row])
    before = contents(sql)
    (tmp_path / "20.png").unlink()
    (tmp_path / "0.png").write_bytes(b"no picture")
    report = ingest(shop, write_csv(tmp_path / "c.csv", [row]))
    assert (report.unchanged, report.images_rejected) == (1, 2)
    assert contents(sql) == before
    row = {"sku": "A", "images": "22.png|20.png|none.png"}
    assert load(shop, tmp_path, [row], force=True) == (0, 1, 0, 0)
    assert fields(sql, "A")["images"] == ["22.png", "20.png"]
    assert load(shop, tmp_path, [{**row, "sku": "new"}]) == (1, 0, 0, 0)
    assert fields(sql, "new")["images"] == ["22.png"]


LOSSES = {
    "pictures": ({"images": ""}, "take 12 of 12 pictures of the 12 products"),
    "fields": (
        {"brand": "", "size": ""},
        "empty 24 of 108 filled fields (brand of 12, size of 12) of the 12 products",
    ),
}


@pytest.mark.parametrize(("row", "message"), LOSSES.values(), ids=LOSSES)
def test_a_run_that_would_take_much_stops_before_it_writes(
    shop: App, sql: psycopg.Connection, tmp_path: Path, row: Row, message: str
) -> None:
    before = contents(sql)
    rows = [{"sku": sku, "title": "new", **row} for sku in SKUS]
    with pytest.raises(BadInput, match="Nothing was written") as caught:
        load(shop, tmp_path, rows)
    assert message in str(caught.value) and "--force" in str(caught.value)
    assert contents(sql) == before
    assert load(shop, tmp_path, rows, force=True) == (0, 12, 0, 0)


def test_a_run_that_takes_a_fifth_goes_on(shop: App, tmp_path: Path) -> None:
    rows = [
        {"sku": sku, "brand": "", "images": f"{n}.png" if n > 1 else ""}
        for n, sku in enumerate(SKUS)
    ]
    assert load(shop, tmp_path, rows) == (0, 12, 0, 0)


def test_prune_deletes_no_more_than_it_was_allowed(
    shop: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    before, row = contents(sql), [{"sku": "A", "title": "new"}]
    with pytest.raises(BadInput, match="11 of 12 products are not in the source") as caught:
        load(shop, tmp_path, row, prune=True)
    message = str(caught.value)
    assert "B, C, D, E, F and 6 more" in message and "--prune-at-most 11" in message
    assert "This run would" not in message
    with pytest.raises(BadInput, match=r"take 1 of 1 pictures.*11 of 12 products"):
        load(shop, tmp_path, [{"sku": "A", "images": ""}], prune=True)
    with pytest.raises(BadInput, match="more than 10:"):
        load(shop, tmp_path, row, prune=True, prune_limit=prune_limit.parse("10"))
    with pytest.raises(BadInput, match=r"more than 0\.9 of them:"):
        load(shop, tmp_path, row, prune=True, prune_limit=prune_limit.parse("90%"))
    assert contents(sql) == before
    assert load(shop, tmp_path, row, prune=True, prune_limit=prune_limit.parse("92%"))[1] == 1
    assert len(contents(sql)["product"]) == 1


@pytest.mark.parametrize(
    ("limit", "count", "total", "allowed"),
    [
        ("default", 10, 10, True), ("default", 11, 109, False), ("default", 11, 110, True),
        ("0", 0, 9, True), ("0", 1, 9, False), ("25%", 3, 12, True), ("25%", 4, 12, False),
        ("100%", 9, 9, True),
    ],
)  # fmt: skip
def test_the_limit_of_a_prune(limit: str, count: int, total: int, allowed: bool) -> None:
    parsed = PruneLimit() if limit == "default" else prune_limit.parse(limit)
    assert (parsed.objection(count, total, []) is None) == allowed


@pytest.mark.parametrize("text", ["", "-1", "ten", "1.5", "101%", "%", "1e3", "٣"])
def test_a_limit_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--prune-at-most"):
        prune_limit.parse(text)


def test_a_dry_run_shows_what_the_run_then_does_and_writes_nothing(
    shop: App, sql: psycopg.Connection, tmp_path: Path
) -> None:
    write_photos(tmp_path, [20])
    rows = [
        {"sku": "new", "price": "1", "size": "XL", "images": "20.png"},
        {"sku": "A", "price": "1", "size": "", "images": "0.png"},
        {"sku": "B", "price": "9.99", "size": "XL", "images": "2.png"},
        {"sku": "C", "price": "9.99", "size": "XL", "images": "2.png"},
        {"sku": "D", "price": "1", "size": "XL", "images": "none.png"},
        {"sku": "A", "price": "2", "size": "XL", "images": "0.png"},
    ]
    before, runs = versions(sql), "SELECT count(*) FROM ingest_run"
    recorded = sql.execute(runs).fetchone()
    result = plan(shop, tmp_path, rows, prune=True)
    assert versions(sql) == before and sql.execute(runs).fetchone() == recorded
    assert result.refused is None
    listed = [(each.change, each.sku, each.columns) for each in result.changes]
    assert listed == [
        ("rejected", "D", ()), ("rejected", "A", ()),
        ("added", "new", ()), ("updated", "A", ("price", "size")), ("updated", "B", ("images",)),
        *(("deleted", sku, ()) for sku in SKUS[4:]),
    ]  # fmt: skip
    assert "already in line 3" in str(result.changes[1].reason)
    report = ingest(shop, tmp_path / "c.csv", prune=True)
    names = ("read", "added", "updated", "unchanged", "rejected", "deleted", "images_rejected")
    for name in names:
        assert getattr(result, name) == getattr(report, name), name


def test_a_dry_run_tells_why_the_run_would_stop_and_lists_the_first_changes(
    shop: App, tmp_path: Path
) -> None:
    result = plan(shop, tmp_path, [{"sku": "A"}], prune=True)
    assert (result.deleted, len(result.changes)) == (11, MAX_SHOWN)
    assert "11 of 12 products" in str(result.refused)
    rows = [*({"sku": sku, "title": "a"} for sku in SKUS), {"sku": "", "title": "a"}]
    result = plan(shop, tmp_path, rows, prune=True)
    assert result.deleted == 0 and "Nothing was pruned: 1 rows" in str(result.refused)
    rows = [{"sku": "A", **dict.fromkeys(FULL, "")}]
    assert "empty 9 of 9 filled fields" in str(plan(shop, tmp_path, rows).refused)
