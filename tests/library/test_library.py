"""The package for programs: each call of its documentation runs, and its errors are ours."""

from __future__ import annotations

import doctest
import inspect
import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

import lookalike
from app.bootstrap import App
from app.config import Settings
from app.library import catalogue as library
from lookalike import BadInput, Catalogue, Query, UnknownProduct
from support.colours import choose_colours, photo
from support.paths import REPO

GUIDE = REPO / "docs" / "python.md"
CALLS = [
    name for name, value in vars(Catalogue).items()
    if inspect.isfunction(value) and not name.startswith("_") and name != "close"
]  # fmt: skip

MUGS: list[dict[str, Any]] = [
    {"sku": "MUG-1", "title": "Checked mug, yellow", "brand": "Okari", "category": "mug",
     "price": 12.5, "images": [photo(1)]},
    {"sku": "MUG-2", "title": "Checked mug, blue", "brand": "Okari", "category": "mug",
     "price": 12, "images": [photo(2)]},
]  # fmt: skip


@pytest.fixture
def shop(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Catalogue]:
    """A catalogue of two mugs, to which `lookalike.connect()` without arguments connects."""
    monkeypatch.setenv("LOOKALIKE_DATABASE_URL", str(settings.database_url))
    monkeypatch.setenv("LOOKALIKE_HOME", str(settings.home))
    monkeypatch.setattr(library, "App", partial(App, choose=choose_colours))
    monkeypatch.chdir(tmp_path)
    for name, seed in (("photo.png", 2), ("mug.png", 3)):
        Path(name).write_bytes(photo(seed))
    with lookalike.connect() as shop:
        assert shop.upsert(MUGS).added == 2
        yield shop


@pytest.mark.parametrize("name", ["connect", *CALLS])
def test_the_example_of_each_call_holds(shop: Catalogue, name: str) -> None:
    call: Callable[..., Any] = getattr(Catalogue, name, None) or getattr(lookalike, name)
    if name in ("delete", "rebuild_index"):
        shop.upsert([{"sku": "MUG-3", "images": ["mug.png"]}])
    given = {"shop": shop, "lookalike": lookalike, "photo": photo(2)}
    (test,) = doctest.DocTestFinder(recurse=False).find(call, name, globs=given)
    assert test.examples, f"{name} has no example"
    assert check(test) == []


def test_the_guide_holds_and_names_each_call(shop: Catalogue) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    parser = doctest.DocTestParser()
    test = parser.get_doctest("\n".join(blocks), {}, GUIDE.name, str(GUIDE), 0)
    assert len(test.examples) > 10
    assert "".join(check(test)) == ""
    assert [name for name in CALLS if f".{name}(" not in text] == []


def check(test: doctest.DocTest) -> list[str]:
    """What differs from the examples of a test."""
    output: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=output.append, clear_globs=False)
    return output


def test_a_search_accepts_bytes_paths_and_the_conditions_of_the_command_line(
    shop: Catalogue,
) -> None:
    for picture in (photo(2), "photo.png", Path("photo.png")):
        result = shop.search(picture, k=1, filters=["price=..12"], also=[picture])
        assert [match.product.sku for match in result.matches] == ["MUG-2"]


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"photo": "missing.png"}, "missing.png cannot be read: No such file or directory.$"),
        ({"photo": 5}, "bytes, a path or an address, not int"),
        ({"photo": b"no picture"}, "not a picture"),
        ({"photo": "http://127.0.0.1/a.png"}, "private network"),
        ({"sku": "MUG-9"}, "MUG-9"),
        ({"sku": "MUG-1", "filters": ["brand"]}, "not of the form"),
        ({"sku": "MUG-1", "filters": "brand=Okari"}, r"list: \['brand=Okari'\]"),
        ({}, "."),
    ],
)
def test_a_bad_query_is_refused_with_a_sentence(
    shop: Catalogue, search: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        shop.search(**search)


def test_many_searches_run_at_a_time_and_their_results_come_in_order(shop: Catalogue) -> None:
    queries = (Query(sku=f"MUG-{1 + number % 2}", k=1) for number in range(40))
    skus = [result.matches[0].product.sku for result in shop.search_many(queries)]
    assert skus == ["MUG-2", "MUG-1"] * 20
    assert not [t for t in threading.enumerate() if t.name.startswith("search_")]


def test_an_error_among_many_searches_comes_at_its_place(shop: Catalogue) -> None:
    results = shop.search_many([Query(sku="MUG-1", k=1), Query(sku="MUG-9"), Query(sku="MUG-2")])
    assert next(results).matches[0].product.sku == "MUG-2"
    with pytest.raises(UnknownProduct, match="MUG-9"):
        next(results)


def test_an_upsert_keeps_what_is_left_out_and_clears_what_is_none(shop: Catalogue) -> None:
    changed = shop.upsert([{"sku": "MUG-1", "brand": None, "stock": 4}, {"sku": "MUG-2"}])
    assert (changed.added, changed.updated, changed.unchanged) == (0, 1, 1)
    stored = shop.product("MUG-1")
    assert (stored.product.brand, stored.product.title) == (None, "Checked mug, yellow")
    assert stored.product.attributes == {"stock": 4} and len(stored.pictures) == 1
    assert [m.product.sku for m in shop.search(sku="MUG-2", filters=["stock=4"]).matches] == [
        "MUG-1"
    ]


def test_a_program_may_empty_any_number_of_fields(shop: Catalogue) -> None:
    emptied = {"title": "", "brand": None, "category": None, "price": None, "images": []}
    assert shop.upsert([{"sku": "MUG-1", **emptied}]).updated == 1
    assert shop.product("MUG-1").pictures == ()


def test_the_same_products_again_change_nothing(shop: Catalogue) -> None:
    assert shop.upsert(MUGS).unchanged == 2


@pytest.mark.parametrize(
    ("product", "reason"),
    [
        ({"sku": ""}, "no sku"),
        ({"sku": "A", "price": "much"}, "the price 'much'"),
        ({"sku": "A", "price": float("nan")}, "no number"),
        ({"sku": "A", "title": ["x"]}, "neither a text nor a number"),
        ({"sku": "A", "note": "\0"}, "NUL"),
        ({"sku": "A", "Title": "x", "title": "y"}, "differ in case"),
        ({"sku": "A", "images": [b"no picture"]}, "not a picture"),
        ({"sku": "A", "images": ["missing.png"]}, "cannot be read"),
    ],
)
def test_a_bad_product_is_refused_with_its_place_and_stops_no_other(
    shop: Catalogue, product: dict[str, Any], reason: str
) -> None:
    result = shop.upsert([{"sku": "GOOD"}, product])
    assert result.added == 1
    (rejected,) = result.rejected
    assert rejected.index == 1 and reason in rejected.reason


@pytest.mark.parametrize("product", [5, "sku", {"sku": "A", "images": [5]}])
def test_an_argument_of_another_type_is_refused_before_anything_is_written(
    shop: Catalogue, product: Any, sql: psycopg.Connection
) -> None:
    with pytest.raises(BadInput, match=r"not (int|str)"):
        shop.upsert([{"sku": "FIRST"}, product])
    assert sql.execute("SELECT count(*) FROM product").fetchone() == (2,)


def test_a_text_or_a_product_instead_of_a_list_is_refused(shop: Catalogue) -> None:
    shop.upsert([{"sku": "M"}])
    with pytest.raises(BadInput, match=r"list: \['M'\]"):
        shop.delete("M", missing_ok=True)
    assert shop.product("M").product.sku == "M"
    with pytest.raises(BadInput, match="in a list"):
        shop.upsert({"sku": "M", "title": "Mug"})  # type: ignore[arg-type]


def test_a_deletion_of_an_unknown_product_deletes_nothing(shop: Catalogue) -> None:
    with pytest.raises(UnknownProduct, match="MUG-9"):
        shop.delete(["MUG-1", "MUG-9"])
    assert shop.product("MUG-1").product.sku == "MUG-1"


def test_windows_is_refused_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(lookalike.UnsupportedPlatform, match="WSL"):
        lookalike.connect()
