"""Feeds from the web and pictures by address: downloaded once, and reported where they fail."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from app.bootstrap import App
from app.config import Settings
from app.db.download_cache import DownloadCache, KnownDownload
from app.errors import BadImage, BadInput, BadSource
from app.library.catalogue import Catalogue
from app.types import Query
from ingest import remote_pictures
from ingest.load import LoadOptions, load, preview_load
from ingest.open_source import download_cache, open_source, public_name
from ingest.open_source import remote_pictures as remote_pictures_of
from ingest.originals import Originals, check_folders, folders_of
from ingest.pipeline import IngestReport
from ingest.prune_limit import UNLIMITED
from support.colours import choose_colours, photo
from support.feed_runs import feed, ingest
from support.picture_server import PictureServer
from support.shop import sha

cli_ingest = importlib.import_module("app.cli.ingest")


@pytest.fixture
def settings(database_url: str, tmp_path: Path, shop: PictureServer) -> Settings:
    return Settings(
        home=tmp_path / "home", database_url=database_url,
        private_addresses=True, downloads_per_second=10_000,
        link_ports=shop.url.rpartition(":")[2],
    )  # fmt: skip


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_pictures, "PAUSE_S", 0.0)


def test_a_feed_from_an_address_is_loaded_with_its_pictures_and_can_be_filtered(
    app: App, shop: PictureServer
) -> None:
    report, rejects = ingest(app, feed(shop, {"A": 1, "B": 2}))
    assert (report.added, report.images_embedded, report.images_downloaded) == (2, 2, 2)
    assert rejects == []
    result = app.search.search(Query(picture=photo(2), k=1))
    assert result.matches[0].product.sku == "B" and result.matches[0].similarity == 1
    from app.search.filters import parse

    filters = parse(["availability=in_stock", "item_group_id=G1"])
    matches = app.search.search(Query(picture=photo(2), filters=filters)).matches
    assert [match.product.sku for match in matches] == ["A"]


def test_variants_of_an_item_group_fold_where_their_colour_is_the_same(
    app: App, shop: PictureServer
) -> None:
    lines = ["id\ttitle\tbrand\tcolor\tsize\timage_link\titem_group_id"]
    for seed, (colour, size) in enumerate([("red", "S"), ("red", "L"), ("blue", "S")]):
        shop.files[f"/{seed}.png"] = photo(seed)
        lines.append(f"V{seed}\tshirt {size}\tOkari\t{colour}\t{size}\t{shop.url}/{seed}.png\tG1")
    shop.files["/feed.tsv"] = "\n".join(lines).encode()
    ingest(app, f"{shop.url}/feed.tsv")
    result = app.search.search(Query(picture=photo(0), fold=True))
    found = {match.product.sku: match.folded for match in result.matches}
    assert found.keys() == {"V0", "V2"} and found["V2"] == ()
    assert [(fold.product.sku, fold.evidence) for fold in found["V0"]] == [("V1", "item group")]


def test_a_second_run_transfers_nothing_and_a_changed_picture_alone_is_transferred(
    app: App, shop: PictureServer
) -> None:
    address = feed(shop, {"A": 1, "B": 2})
    ingest(app, address)
    shop.reset()
    report, _ = ingest(app, address)
    assert (report.unchanged, report.images_downloaded, report.images_not_modified) == (2, 0, 2)
    assert not shop.sent and shop.unchanged == {"/feed.tsv": 1, "/A.png": 1, "/B.png": 1}
    shop.files["/B.png"] = photo(3)
    report, _ = ingest(app, address)
    assert (report.updated, report.images_downloaded) == (1, 1)
    assert app.search.search(Query(picture=photo(3), k=1)).matches[0].similarity == 1


def test_a_server_without_validators_is_asked_for_everything_again(
    app: App, shop: PictureServer
) -> None:
    shop.validators = False
    address = feed(shop, {"A": 1})
    assert [ingest(app, address)[0].images_downloaded for _ in range(2)] == [1, 1]


def test_a_picture_that_is_known_but_not_stored_is_transferred_again(
    app: App, shop: PictureServer
) -> None:
    address = feed(shop, {"A": 1})
    ingest(app, address)
    app.catalog.delete(["A"])
    report, rejects = ingest(app, address)
    assert (report.added, report.images_embedded, rejects) == (1, 1, [])


def test_what_could_not_be_fetched_is_reported_with_its_reason_and_stops_no_other(
    app: App, shop: PictureServer, sql: psycopg.Connection
) -> None:
    address = feed(shop, {"A": 1, "B": 2, "C": 3})
    del shop.files["/A.png"]
    shop.files["/B.png"] = b"<html><p>sign in"
    report, rejects = ingest(app, address)
    assert (report.added, report.rejected, report.images_rejected) == (1, 2, 2)
    reasons = {each.sku: each.reason for each in rejects}
    assert "404" in reasons["A"] and "web page" in reasons["B"]
    assert {each.image for each in rejects} == {f"{shop.url}/A.png", f"{shop.url}/B.png"}
    recorded = sql.execute("SELECT count(*) FROM ingest_reject WHERE image IS NOT NULL").fetchone()
    assert recorded == (2,)


def test_a_product_keeps_its_picture_while_the_server_is_down(
    app: App, shop: PictureServer, sql: psycopg.Connection
) -> None:
    address = feed(shop, {"A": 1, "B": 2})
    ingest(app, address)
    shop.broken["/A.png"] = [503] * 9
    report, rejects = ingest(app, address, prune=True, prune_limit=UNLIMITED)
    assert (report.rejected, report.deleted) == (1, 0) and "503" in rejects[0].reason
    assert sql.execute("SELECT count(*) FROM product_picture").fetchone() == (2,)


@pytest.mark.parametrize("trouble", ["cut", 503, 429, (503, {"Retry-After": "0"})])
def test_a_picture_is_asked_for_again_after_a_passing_trouble(
    app: App, shop: PictureServer, trouble: Any
) -> None:
    address = feed(shop, {"A": 1})
    shop.broken["/A.png"] = [trouble, trouble]
    report, rejects = ingest(app, address)
    assert (report.added, rejects, shop.asked["/A.png"]) == (1, [], 3)


def test_a_feed_that_breaks_off_changes_nothing_and_the_next_run_completes_it(
    app: App, shop: PictureServer
) -> None:
    address = feed(shop, {"A": 1})
    ingest(app, address)
    feed(shop, {"A": 1, "B": 2})
    shop.broken["/feed.tsv"] = ["cut"]
    with pytest.raises(BadSource, match="broke off"):
        ingest(app, address, prune=True)
    assert app.catalog.product("A").product.sku == "A"
    assert ingest(app, address, prune=True)[0].added == 1


def test_an_xml_feed_that_breaks_off_is_loaded_so_far_and_prunes_nothing(
    app: App, shop: PictureServer
) -> None:
    ingest(app, feed(shop, {"A": 1, "B": 2}))
    items = f"<item><id>A</id><image_link>{shop.url}/A.png</image_link></item><item><id>"
    shop.files["/feed.xml"] = f"<rss><channel>{items}".encode()
    with pytest.raises(BadSource, match="cut off"):
        ingest(app, f"{shop.url}/feed.xml", prune=True, prune_limit=UNLIMITED)
    assert app.catalog.product("B").product.sku == "B"


def test_an_interrupted_run_transfers_what_is_missing_only(
    app: App, shop: PictureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.prefetch.CHUNK_ROWS", 2)
    address = feed(shop, {f"P{number}": number for number in range(8)})

    def interrupt(report: IngestReport, _rows: int) -> None:
        if report.added >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(
            app.engine, app.catalog, app.encoders, app.limits,
            open_source(address, app.settings), progress=interrupt,
        )  # fmt: skip
    stored = {f"/P{number}.png" for number in range(4)}
    shop.reset()
    report, _ = ingest(app, address)
    assert (report.added, report.unchanged) == (4, 4)
    assert not stored & shop.sent.keys()


def test_private_addresses_are_refused_unless_they_are_allowed(
    app: App, settings: Settings, shop: PictureServer, tmp_path: Path
) -> None:
    address = feed(shop, {"A": 1})
    strict = settings.model_copy(update={"private_addresses": False})
    with pytest.raises(BadSource, match="private network"):
        open_source(address, strict)
    (tmp_path / "feed.tsv").write_bytes(shop.files["/feed.tsv"])
    with App(strict, choose=choose_colours) as guarded:
        report, (reject,) = ingest(guarded, str(tmp_path / "feed.tsv"))
    assert report.rejected == 1 and "private network" in reject.reason
    assert not shop.asked


def test_a_dry_run_downloads_pictures_and_writes_nothing(
    app: App, shop: PictureServer, sql: psycopg.Connection
) -> None:
    opened = open_source(feed(shop, {"A": 1}), app.settings)
    result = preview_load(app.engine, app.catalog, app.encoders, app.limits, opened)
    assert (result.added, result.rejected) == (1, 0)
    assert sql.execute("SELECT count(*) FROM product").fetchone() == (0,)


def test_a_feed_from_the_web_may_not_name_files(app: App, shop: PictureServer) -> None:
    shop.files["/feed.csv"] = b"sku,images\nA,../secret.png\n"
    report, (reject,) = ingest(app, f"{shop.url}/feed.csv")
    assert report.rejected == 1 and "no web address" in reject.reason


def test_local_sources_may_name_files_and_addresses(
    app: App, shop: PictureServer, tmp_path: Path
) -> None:
    feed(shop, {"A": 1})
    (tmp_path / "b.png").write_bytes(photo(2))
    rows = [{"sku": "A", "images": [f"{shop.url}/A.png", "b.png"]}]
    (tmp_path / "feed.jsonl").write_text("\n".join(map(json.dumps, rows)))
    report, rejects = ingest(app, str(tmp_path / "feed.jsonl"))
    assert (report.images_embedded, report.images_downloaded, rejects) == (2, 1, [])


def test_the_record_of_a_run_has_the_address_without_its_query(
    app: App, shop: PictureServer, sql: psycopg.Connection
) -> None:
    feed(shop, {"A": 1}, "/feed.tsv?token=hunter2")
    ingest(app, f"{shop.url}/feed.tsv?token=hunter2")
    assert sql.execute("SELECT source FROM ingest_run").fetchone() == (f"{shop.url}/feed.tsv",)
    assert public_name("https://user:secret@shop.test/a?b#c") == "https://shop.test/a"
    assert public_name("a?b.csv") == "a?b.csv"


def test_a_damaged_download_cache_only_costs_a_transfer(
    app: App, shop: PictureServer, settings: Settings
) -> None:
    address = feed(shop, {"A": 1})
    ingest(app, address)
    (settings.download_folder / "known.sqlite3").write_bytes(b"no database" * 1000)
    assert ingest(app, address)[0].images_downloaded == 1
    assert ingest(app, address)[0].images_not_modified == 1


def test_a_download_cache_that_cannot_be_written_is_not_needed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    cache = DownloadCache(tmp_path / "file" / "downloads.sqlite3")
    cache.put("u", KnownDownload("e", "", b"x"))
    assert cache.get("u") is None and "is not known" in caplog.text


def test_another_model_finds_originals_on_the_web(
    app: App, shop: PictureServer, settings: Settings
) -> None:
    ingest(app, feed(shop, {"A": 1}))
    sources = app.catalog.ingest_sources()
    check_folders(folders_of(sources), sources)
    remote = remote_pictures_of(settings, download_cache(settings))
    originals = Originals([], app.limits, None, remote)
    name = f"{shop.url}/A.png"
    assert originals.find(sha(1), [name]).size == (32, 32)
    with pytest.raises(BadImage, match="was changed"):
        originals.find(sha(2), [name])
    assert list(remote._folder.iterdir()) == []
    remote.close()


def test_the_command_line_sums_up_what_could_not_be_fetched(
    shop: PictureServer, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address = feed(shop, {"A": 1, "B": 2, "C": 3})
    del shop.files["/A.png"], shop.files["/B.png"]
    monkeypatch.setattr(cli_ingest, "App", lambda **_: App(settings, choose=choose_colours))
    rejects = tmp_path / "rejects.csv"
    done = CliRunner().invoke(cli_ingest.ingest, [address, "--rejects", str(rejects)])
    assert done.exit_code == 0, done.output
    assert "1 added" in done.output and "1 downloaded, 0 unchanged on the web" in done.output
    assert "2 of these pictures: 127.0.0.1 answered with status 404" in done.output
    assert f"{shop.url}/A.png" in rejects.read_text()
    done = CliRunner().invoke(cli_ingest.ingest, [address, "--format", "jsonl"])
    assert "3 rejected" in done.output or "4 rejected" in done.output


def test_a_program_may_name_pictures_by_address(
    shop: PictureServer, settings: Settings, app: App
) -> None:
    feed(shop, {"A": 1})
    catalogue = Catalogue(app)
    product = {"sku": "A", "images": [f"{shop.url}/A.png"]}
    assert catalogue.upsert([product]).added == 1
    assert catalogue.search(f"{shop.url}/A.png", k=1).matches[0].product.sku == "A"
    shop.reset()
    assert catalogue.upsert([product]).unchanged == 1 and not shop.sent


def test_rejects_may_not_overwrite_the_source(app: App, tmp_path: Path) -> None:
    source = tmp_path / "feed.jsonl"
    source.write_text('{"sku": "A"}')
    with pytest.raises(BadInput, match="overwrite"):
        load(
            app.engine, app.catalog, app.encoders, app.limits, source,
            LoadOptions(rejects=source),
        )  # fmt: skip
