"""The drawn demo catalogue and its contact sheet."""

from __future__ import annotations

import csv
import unicodedata
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image, ImageFont

from app.errors import BadInput
from ingest.demo import draw_catalogue
from ingest.demo.catalogue import invent
from ingest.demo.contact_sheet import SheetPicture, SheetRow, contact_sheet, wrapped
from ingest.demo.kinds import KINDS

PRODUCTS = 40


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def content(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(f.relative_to(folder)): sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_catalogue(tmp_path_factory.mktemp("demo"), products=PRODUCTS, seed=3).parent


def test_the_same_seed_draws_the_same_bytes_and_another_seed_different_ones(tmp_path: Path) -> None:
    for name, seed in (("one", 5), ("two", 5), ("other", 6)):
        draw_catalogue(tmp_path / name, products=3, seed=seed)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    pictures = [content(tmp_path / name)["images/DEMO-0001.jpg"] for name in ("one", "other")]
    assert pictures[0] != pictures[1]


def test_every_picture_of_the_catalogue_exists_and_can_be_opened(demo: Path) -> None:
    rows = rows_of(demo / "catalogue.csv")
    named = [name for row in rows for name in row["images"].split("|")]
    assert len(rows) == len({row["sku"] for row in rows}) == PRODUCTS
    assert len(named) == len(set(named)) > PRODUCTS
    assert {str(p.relative_to(demo)) for p in (demo / "images").iterdir()} == set(named)
    for name in named:
        with Image.open(demo / name) as picture:
            assert picture.format == "JPEG" and min(picture.size) >= 400


def test_the_catalogue_varies_kinds_colours_patterns_brands_and_years() -> None:
    items = invent(320, 7)
    kinds = Counter(item.kind.name for item in items)
    assert set(kinds) == {kind.name for kind in KINDS} and min(kinds.values()) >= 15
    assert len({item.colour for item in items}) >= 14
    assert {"plain", "striped", "dotted", "checked", "zigzag"} <= {i.pattern for i in items}
    assert len({item.brand for item in items}) >= 10
    assert len({item.year for item in items}) >= 8
    assert all(float(item.price) > 0 for item in items)
    assert 380 <= sum(item.pictures for item in items) <= 460


def test_a_small_catalogue_is_a_prefix_of_a_large_one() -> None:
    assert invent(30, 7) == invent(60, 7)[:30]


def test_duplicates_have_the_same_file_a_new_photograph_or_another_spelling(
    demo: Path,
) -> None:
    again = [item for item in invent(PRODUCTS, 3) if item.original]
    rows = {row["sku"]: row for row in rows_of(demo / "catalogue.csv")}
    assert {item.reissue for item in again} == {
        "same file",
        "new photograph",
        "same file, other spelling",
    }
    for item in again:
        new, old = rows[item.sku], rows[str(item.original)]
        assert int(new["year"]) > int(old["year"])
        assert (new["title"] != old["title"]) == (item.reissue == "same file, other spelling")
        assert plain(new["title"]) == plain(old["title"])
        pictures = [(demo / row["images"].split("|")[0]).read_bytes() for row in (new, old)]
        assert (pictures[0] == pictures[1]) == (item.reissue != "new photograph")


def plain(title: str) -> str:
    decomposed = unicodedata.normalize("NFKD", title.casefold())
    letters = "".join(c for c in decomposed if c.isalnum() or c.isspace())
    return " ".join(letters.split())


def test_queries_are_new_photographs_of_products_with_one_right_answer(demo: Path) -> None:
    queries = rows_of(demo / "queries.csv")
    skus = {row["sku"] for row in rows_of(demo / "catalogue.csv")}
    again = {item.original for item in invent(PRODUCTS, 3)}
    assert len(queries) >= 12
    assert {row["expected_sku"] for row in queries} <= skus - again
    stored = {sha256(p.read_bytes()).digest() for p in (demo / "images").iterdir()}
    for row in queries:
        assert sha256((demo / row["query"]).read_bytes()).digest() not in stored


def test_a_complete_folder_is_kept_and_an_incomplete_one_is_drawn_again(
    tmp_path: Path,
) -> None:
    table = draw_catalogue(tmp_path, products=2, seed=1)
    whole, written = content(tmp_path), table.stat().st_mtime_ns
    draw_catalogue(tmp_path, products=2, seed=1)
    assert table.stat().st_mtime_ns == written
    (tmp_path / "images" / "DEMO-0002.jpg").unlink()
    draw_catalogue(tmp_path, products=2, seed=1)
    assert content(tmp_path) == whole


def test_an_interrupted_catalogue_is_not_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ingest.demo.folder._draw_queries", interrupted)
        with pytest.raises(KeyboardInterrupt):
            draw_catalogue(tmp_path, products=2, seed=1)
    draw_catalogue(tmp_path, products=2, seed=1)
    assert len(rows_of(tmp_path / "queries.csv")) == 2


def test_a_smaller_catalogue_leaves_no_pictures_of_the_larger_one(tmp_path: Path) -> None:
    draw_catalogue(tmp_path, products=3, seed=1)
    draw_catalogue(tmp_path, products=1, seed=1)
    assert [p.name for p in (tmp_path / "images").iterdir()] == ["DEMO-0001.jpg"]


def test_a_catalogue_that_was_not_drawn_here_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "catalogue.csv").write_text("sku,images\nMINE,a.jpg\n")
    with pytest.raises(BadInput, match="not the demo's"):
        draw_catalogue(tmp_path, products=1)
    assert "MINE" in (tmp_path / "catalogue.csv").read_text()


def test_a_contact_sheet_has_the_requested_width_and_is_written_atomically(
    tmp_path: Path,
) -> None:
    tile = Image.new("RGB", (300, 200), "#886644")
    match = SheetPicture(tile, ("Ébène Sølv a title that is much too long for its cell", "x"), 0.9)
    row = SheetRow(SheetPicture(tile, ("Query",)), (match,) * 5)
    target = tmp_path / "sheets" / "sheet.png"
    contact_sheet([row, row], target)
    with Image.open(target) as sheet:
        assert sheet.format == "PNG" and sheet.width == 1400
        assert 500 < sheet.height < 900
    assert [path.name for path in target.parent.iterdir()] == ["sheet.png"]


def test_a_contact_sheet_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        contact_sheet([], tmp_path / "sheet.png")


def test_captions_fit_their_cell_and_lose_only_the_accents_the_font_lacks() -> None:
    font = ImageFont.load_default(16)
    lines = wrapped("Ébène Sølv sunglasses " * 5, font, 150, lines=2)
    assert len(lines) == 2 and lines[-1].endswith("…")
    assert all(font.getlength(line) <= 150 for line in lines)
    assert wrapped("Ébène Sølv", font, 400, lines=1)[0].casefold() in {"ebene solv", "ébène sølv"}
    assert wrapped("", font, 150, lines=2) == []
