"""SQL functions that compare products: pairs, differences, centroids and outliers."""

from __future__ import annotations

import numpy as np
import psycopg
import pytest

from app.bootstrap import App
from app.db.queries.nearest import literal
from support.analysts import rows
from support.fallback import build_pgvector_index

pytestmark = pytest.mark.xdist_group("analytics")  # the catalogue is filled once


# Pairs


def test_pairs_equal_those_of_an_exact_comparison(shop: App, analyst: psycopg.Connection) -> None:
    results = rows(
        analyst,
        "SELECT sku_a, sku_b, distance FROM analytics.near_duplicate_pairs(0.8, neighbours => 300)",
    )
    expected = rows(
        analyst,
        """SELECT a.sku, b.sku, min(a.embedding <=> b.embedding)
        FROM analytics.embeddings AS a JOIN analytics.embeddings AS b ON a.sku < b.sku
        WHERE a.embedding <=> b.embedding <= 0.8 GROUP BY 1, 2 ORDER BY 3, 1, 2""",
    )  # fmt: skip
    assert len(expected) > 20
    assert results == expected


def test_in_every_pair_of_a_filter_at_least_one_product_passes_it(
    analyst: psycopg.Connection,
) -> None:
    every = "SELECT * FROM analytics.near_duplicate_pairs(0.8, neighbours => 300)"
    narrow = every.replace("0.8", "0.8, brand => '{Kestrel}', category => '{lamp,mug}'")
    of = {sku: (brand, category) for sku, brand, category in
          rows(analyst, "SELECT sku, brand, category FROM analytics.products")}  # fmt: skip

    def passes(sku: str) -> bool:
        brand, category = of[sku]
        return brand == "Kestrel" and category in ("lamp", "mug")

    expected = [row for row in rows(analyst, every) if passes(row[0]) or passes(row[1])]
    assert 0 < len(expected) < len(rows(analyst, every))
    assert rows(analyst, narrow) == expected


def test_truncated_pairs_are_marked_as_incomplete(analyst: psycopg.Connection) -> None:
    few = rows(analyst, "SELECT complete FROM analytics.near_duplicate_pairs(2, neighbours => 3)")
    all_ = rows(
        analyst, "SELECT complete FROM analytics.near_duplicate_pairs(2, neighbours => 900)"
    )
    assert {complete for (complete,) in few} == {False}
    assert {complete for (complete,) in all_} == {True} and len(all_) == 90 * 89 / 2


def test_a_placeholder_picture_makes_no_pairs(analyst: psycopg.Connection) -> None:
    sql = """SELECT sku_a, sku_b, same_picture
        FROM analytics.near_duplicate_pairs(0, max_shown_by => {})"""
    assert rows(analyst, sql.format(1)) == []
    assert rows(analyst, sql.format(2)) == [
        (f"DEMO-{n - 1:04}", f"DEMO-{n:04}", True) for n in range(9, 90, 10)
    ]


def test_pairs_are_computed_with_the_index(shop: App, owner: psycopg.Connection) -> None:
    model = shop.catalog.model()
    build_pgvector_index(shop)
    used = f"""SELECT idx_scan FROM pg_stat_user_indexes
        WHERE indexrelname = 'embedding_m{model.id}_ivf1_idx'"""
    # A sequential scan of ninety rows would be cheaper than the index.
    owner.execute("SET enable_seqscan = off")
    owner.execute("SELECT count(*) FROM analytics.near_duplicate_pairs(0.1)")
    owner.execute("SELECT pg_stat_force_next_flush()")
    owner.commit()
    assert rows(owner, used)[0][0] >= 90


def test_index_settings_are_local_to_the_function(analyst: psycopg.Connection) -> None:
    with analyst.transaction():
        rows(analyst, "SELECT '[1]'::vector")
        analyst.execute("SET LOCAL ivfflat.probes = 77")
        rows(analyst, "SELECT count(*) FROM analytics.near_duplicate_pairs(0.1)")
        assert rows(analyst, "SHOW ivfflat.probes") == [("77",)]
        assert rows(analyst, "SHOW ivfflat.iterative_scan") == [("off",)]


# Comparison, centroid and outliers


def test_a_comparison_lists_the_differences(
    analyst: psycopg.Connection, owner: psycopg.Connection
) -> None:
    owner.execute("UPDATE product SET title = 'Café lamp', price = 5 WHERE sku = 'DEMO-0008'")
    owner.execute("UPDATE product SET title = 'cafe chair', price = 5 WHERE sku = 'DEMO-0009'")
    [row] = rows(
        owner,
        """SELECT distance, similarity, shared_pictures, same_words, differs,
        words_of_both, words_of_a, words_of_b FROM analytics.compare('DEMO-0008', 'DEMO-0009')""",
    )
    assert row == (
        0.0, 1.0, 1, False, ["title", "brand", "category", "colour", "year"],
        ["cafe", "lamp"], ["blue", "mug"], ["chair", "kestrel", "red"],
    )  # fmt: skip


def test_a_centroid_is_the_mean_direction_of_its_pictures(
    shop: App, analyst: psycopg.Connection
) -> None:
    results = rows(
        analyst,
        """SELECT DISTINCT ON (picture) embedding::vector::real[]
        FROM analytics.embeddings WHERE category = 'lamp'""",
    )
    mean = np.mean([vector for (vector,) in results], axis=0)
    [(centre,)] = rows(analyst, "SELECT analytics.centroid('lamp')::real[]")
    assert np.allclose(centre, mean / np.linalg.norm(mean), atol=1e-6)
    [(both,)] = rows(analyst, "SELECT analytics.centroid('lamp', 'Kestrel')::real[]")
    assert not np.allclose(both, centre, atol=1e-3)


def test_a_product_in_the_wrong_category_is_the_first_outlier(
    owner: psycopg.Connection,
) -> None:
    """Three clusters of pictures; one picture is filed in another category."""
    axes = {"lamp": 1, "chair": 2, "mug": 3}
    for category, axis in axes.items():
        _point(owner, "p.category = %s", [category], axis)
    _point(owner, "p.sku = 'DEMO-0000'", [], axes["chair"])
    results = rows(
        owner,
        "SELECT sku, filed_under, looks_like, shown_elsewhere FROM analytics.outliers(n => 90)",
    )
    alone = [row for row in results if not row[3]]
    assert alone[0][:3] == ("DEMO-0000", "lamp", "chair")
    lamps = "SELECT sku FROM analytics.outliers('lamp', 90) WHERE shown_elsewhere = 0"
    assert rows(owner, lamps)[0] == ("DEMO-0000",)


def test_a_photo_shared_by_two_categories_comes_first(analyst: psycopg.Connection) -> None:
    results = rows(analyst, "SELECT sku, shown_elsewhere FROM analytics.outliers(n => 90)")
    assert len(results) == 90
    shared = [bool(count) for _, count in results]
    assert shared == sorted(shared, reverse=True) and 0 < sum(shared) < 90
    assert {"DEMO-0008", "DEMO-0009"} <= {sku for sku, count in results if count}


def _point(owner: psycopg.Connection, where: str, values: list[str], axis: int) -> None:
    """Rotate the pictures of products towards an axis, each with a small deviation of its own."""
    random = np.random.default_rng(axis)
    ids = rows(
        owner,
        f"""SELECT DISTINCT picture_id FROM product_picture AS pp
        JOIN product AS p ON p.id = pp.product_id WHERE {where} ORDER BY 1""",
        values,
    )
    for (picture,) in ids:
        vector = random.standard_normal(49) * 0.05
        vector[axis] += 1
        unit = (vector / np.linalg.norm(vector)).astype(np.float32)
        owner.execute(
            "UPDATE embedding SET vec = %s::halfvec WHERE picture_id = %s", [literal(unit), picture]
        )
