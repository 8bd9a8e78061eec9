"""Duplicate groups in SQL are those of the command line and the page, with their evidence."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import psycopg
import pytest

from app.bootstrap import App
from app.catalog.batch_write import Batch
from app.catalog.entries import ProductEntry
from app.db.queries import calibration
from app.duplicates import general_words, identifiers
from app.duplicates.evidence import (
    DEFAULT_CUT,
    GENERIC_SHARE,
    MODEL_CUTS,
    FoldCuts,
    default_cut,
    generic_share,
)
from app.duplicates.general_words import GENERIC_WORDS, is_generic
from app.duplicates.identifiers import Identifiers
from app.duplicates.normalization import identity_key
from app.duplicates.report import catalogue_folds
from app.duplicates.verdicts import Contradiction, decide
from app.types import Calibration, CutOff, PictureData, PictureRef, Product

GTINS = ("5901234123457", "4006381333931", "36000291452", "5901234123458")
TITLES = ("Marria blazer", "navy blazer", "Corano blazer", "Women classic blazer", "XJ2000", "")
UNKNOWN = CutOff(None, 0, 0)


def catalogue(app: App, seed: int, count: int = 40) -> None:
    """Products of few words and identifiers, with pictures near each other or none."""
    draw = np.random.default_rng(seed)
    model = app.catalog.model()
    centres = draw.standard_normal((4, model.dim))
    stored: dict[bytes, PictureData] = {}
    vectors: dict[bytes, np.ndarray] = {}
    for number in range(count):
        sha = seed.to_bytes(4, "big") + number.to_bytes(28, "big")
        vector = centres[number % 4] + draw.standard_normal(model.dim) * draw.choice([0.1, 0.4])
        vectors[sha] = (vector / np.linalg.norm(vector)).astype(np.float32)
        stored[sha] = PictureData(sha, 1, 1, b"jpeg")
    shas = list(stored)
    entries = []
    for number in range(count):
        shown = draw.choice(count, draw.choice([0, 1, 1, 1, 2]), replace=False)
        names = draw.choice(["gtin", "EAN", "g:mpn", "Item Group ID", "size"], 2, replace=False)
        attributes = {
            str(name): str(draw.choice([*GTINS, "KX-100", "none"]))
            for name in names[: draw.integers(0, 3) if draw.random() < 0.3 else 0]
        }
        product = Product(
            f"P{number:03}", str(draw.choice(TITLES)), str(draw.choice(["Kestrel", "Solano"])),
            str(draw.choice(["Blazer", "blazers"])), str(draw.choice(["navy", "navy", ""])),
            int(draw.integers(2019, 2022)), attributes=attributes,
        )  # fmt: skip
        entries.append(ProductEntry(product, tuple(PictureRef(shas[n], f"{n}.png") for n in shown)))
    app.catalog.write(Batch(entries, stored, vectors), model)
    for _ in range(6):
        a, b = (f"P{n:03}" for n in sorted(draw.choice(count, 2, replace=False)))
        try:
            decide(app.engine, a, b, bool(draw.random() < 0.4), "Ada")
        except Contradiction:
            continue


def calibrate(app: App, **cuts: float) -> None:
    """Store cuts of "same product" by category; `whole` is that of the whole catalogue."""
    rows = [
        Calibration(None if name == "whole" else name, UNKNOWN, CutOff(cut, 20, 20), UNKNOWN)
        for name, cut in cuts.items()
    ]
    with app.engine.begin() as connection:
        calibration.replace(connection, app.catalog.model().id, rows)


@pytest.mark.parametrize("seed", range(8))
def test_groups_and_similar_listings_equal_those_of_the_service(
    app: App, sql: psycopg.Connection, seed: int
) -> None:
    catalogue(app, seed)
    if seed % 2:
        calibrate(app, whole=0.3, Blazer=0.15)
    folds = catalogue_folds(app.engine, 1.0)
    found = sql.execute("SELECT array_agg(sku) FROM analytics.duplicate_groups GROUP BY kept")
    expected = {frozenset(group.skus) for group in folds.groups}
    assert {frozenset(skus) for (skus,) in found} == expected and expected
    told = sql.execute("SELECT sku, kept, evidence FROM analytics.duplicate_groups").fetchall()
    kept, evidence = {row[0]: row[1] for row in told}, {row[0]: row[2] for row in told}
    for group in folds.groups:
        for fold in group.folded:
            sku, keeper = fold.candidate.sku, group.keeper.sku
            direct = fold.matched_by == keeper
            assert (kept[sku], evidence[sku]) == (keeper, fold.rule if direct else "another member")
    listed = sql.execute(
        """SELECT least(sku, nearest COLLATE "C"), greatest(sku, nearest COLLATE "C"), reason,
            distance FROM analytics.similar_listings"""
    ).fetchall()
    pairs = {(pair.product.sku, pair.other.sku): pair for pair in folds.similar}
    compared = {pair[:2] for pair in listed if pair[3] is not None}
    assert compared == {skus for skus, pair in pairs.items() if pair.distance is not None}
    for a, b, reason, distance in listed:
        if distance is not None:
            assert pairs[a, b].distance == pytest.approx(distance, abs=1e-4)
            assert reason == pairs[a, b].reason


def gtin(number: int) -> str:
    digits = f"{number + 1:012}"
    total = sum(int(digit) * (1, 3)[place % 2] for place, digit in enumerate(digits))
    return f"{digits}{-total % 10}"


@pytest.mark.parametrize("gtins", [False, True])
def test_many_products_with_the_same_words_are_those_of_the_service(
    app: App, sql: psycopg.Connection, gtins: bool
) -> None:
    model = app.catalog.model()
    draw = np.random.default_rng(0)
    entries, stored, vectors = [], {}, {}
    for number in range(60):
        sha = number.to_bytes(32, "big")
        stored[sha] = PictureData(sha, 1, 1, b"jpeg")
        vector = np.eye(model.dim)[number % 3] + draw.standard_normal(model.dim) * 0.02
        vectors[sha] = (vector / np.linalg.norm(vector)).astype(np.float32)
        attributes = {"gtin": gtin(number)} if gtins and number % 7 == 0 else {}
        product = Product(
            f"P{number:02}", "Marria blazer", "Kestrel", "Blazer", "navy", attributes=attributes
        )
        entries.append(ProductEntry(product, (PictureRef(sha, "1.png"),)))
    app.catalog.write(Batch(entries, stored, vectors), model)
    folds = catalogue_folds(app.engine, 1.0)
    found = sql.execute("SELECT array_agg(sku) FROM analytics.duplicate_groups GROUP BY kept")
    expected = {frozenset(group.skus) for group in folds.groups}
    assert len(expected) >= 3 and sum(map(len, expected)) >= 50
    assert {frozenset(skus) for (skus,) in found} == expected


def test_the_evidence_names_what_joined(app: App, sql: psycopg.Connection) -> None:
    model = app.catalog.model()
    sha = bytes(32)
    unit = np.ones(model.dim, np.float32) / np.float32(model.dim**0.5)
    base = Product("A", "Marria", "Kestrel", "Blazer", "navy", 2022)
    products = [
        base, replace(base, sku="B"), replace(base, sku="C", year=2020),
        replace(base, sku="D", title="Corano", year=2019), replace(base, sku="E", title="Quist"),
        replace(base, sku="F", title="Quist 2", attributes={"ean": GTINS[0]}),
        replace(base, sku="G", title="Quist 3", attributes={"gtin13": GTINS[0]}),
    ]  # fmt: skip
    entries = [ProductEntry(each, (PictureRef(sha, "1.png"),)) for each in products]
    app.catalog.write(Batch(entries, {sha: PictureData(sha, 1, 1, b"jpeg")}, {sha: unit}), model)
    decide(app.engine, "A", "D", True, "Ada")
    rows = sql.execute(
        "SELECT sku, kept, evidence, round(distance::numeric, 3) FROM analytics.duplicate_groups"
        " ORDER BY sku"
    ).fetchall()
    assert rows == [
        ("A", "A", "kept", 0), ("B", "A", "same words", 0), ("C", "A", "another year", 0),
        ("D", "A", "verdict", 0), ("F", "F", "kept", 0), ("G", "F", "gtin", 0),
    ]  # fmt: skip


def test_a_picture_of_many_different_products_is_not_compared(
    app: App, sql: psycopg.Connection
) -> None:
    model = app.catalog.model()
    sha = bytes(32)
    unit = np.ones(model.dim, np.float32) / np.float32(model.dim**0.5)
    products = [Product(f"P{n}", f"{'abcdefghij'[n]}ovar", "b", "c") for n in range(9)]
    products.append(Product("Q1", "plain shirt", "b", "c"))
    products.append(Product("Q2", "plain shirt", "b", "c"))
    entries = [ProductEntry(each, (PictureRef(sha, "1.png"),)) for each in products]
    app.catalog.write(Batch(entries, {sha: PictureData(sha, 1, 1, b"jpeg")}, {sha: unit}), model)
    folds = catalogue_folds(app.engine, 1.0)
    assert folds.groups == []
    assert [pair.reason for pair in folds.similar] == ["no picture to compare"]
    assert sql.execute("SELECT count(*) FROM analytics.duplicate_groups").fetchone() == (0,)
    reasons = sql.execute("SELECT reason FROM analytics.similar_listings").fetchall()
    assert reasons == [("no picture to compare",)] * 2


def test_general_words_are_the_same_in_sql(sql: psycopg.Connection) -> None:
    [(words,)] = sql.execute("SELECT analytics._generic_words()").fetchall()
    assert set(words) == GENERIC_WORDS
    titles = (*TITLES, "500ml", "2 pack tee", "x" * 600, "Kestrel 2020", "v neck", "5.5 inch")
    for title in titles:
        key = identity_key(Product("A", title, "Kestrel", "Blazer", "navy", 2020))
        assert sql.execute("SELECT analytics._is_generic(%s)", [key]).fetchone() == (
            is_generic(key),
        )
    assert general_words.MAX_KEY == 500


@pytest.mark.parametrize(
    "attributes",
    [{"gtin": 5901234123457}, {"gtin": "590-1234 123457"}, {"EAN": 1.5, "upc": "36000291452"},
     {"barcode": "123", "g:gtin": GTINS[1]}, {"MPN": " kx-100 "}, {"mpn": "abc"}, {"mpn": True},
     {"part number": "KX/1"}, {"item_group_id": " G7 "}, {"Item Group": "N/A"}, {"gtin": None},
     {"gtin": [GTINS[0]]}, {"gtin": "0000000000000"}, {"item_group_id": 12}],
)  # fmt: skip
def test_identifiers_are_the_same_in_sql(sql: psycopg.Connection, attributes: dict) -> None:
    ours = identifiers.identifiers(Product("A", attributes=attributes), "1|b|c|d|e")
    [row] = sql.execute(
        "SELECT analytics._identifier(a, 'gtin'), analytics._identifier(a, 'mpn'),"
        " analytics._identifier(a, 'item group') FROM (SELECT CAST(%s AS jsonb) AS a) AS one",
        [json.dumps(attributes)],
    ).fetchall()
    gtin, mpn, group = row
    assert ours == Identifiers(gtin, mpn and f"b|{mpn}", group and f"b|d|{group}")


def test_cuts_are_the_same_in_sql(app: App, sql: psycopg.Connection) -> None:
    calibrate(app, whole=0.3, Hat=0.1)
    model = app.catalog.model()
    with app.engine.connect() as connection:
        cuts = FoldCuts.of_model(model, calibration.read(connection, model.id))
    statement = "SELECT analytics._same_product_cut(m, %s) FROM model AS m WHERE m.active"
    for category in ("Hat", "Coat", None):
        expected = cuts.cut(category, generic=False)
        assert sql.execute(statement, [category]).fetchone() == (pytest.approx(expected),)
    calibrate(app)
    share = "SELECT analytics._generic_share(m) FROM model AS m WHERE m.active"
    names = [name for name, _ in MODEL_CUTS] + ["embedded-int8", "clip-ViT-B-32"]
    for name in names:
        for revision in ("0-a", "1-a", "2-a", "3-a"):
            sql.execute("UPDATE model SET name = %s, revision = %s", [name, revision])
            expected = default_cut(name, revision)
            assert sql.execute(statement, [None]).fetchone() == (expected,)
            assert sql.execute(share).fetchone() == (generic_share(name, revision),)
    assert (DEFAULT_CUT, GENERIC_SHARE) == (0.1, 0.625)
