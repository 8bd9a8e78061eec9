"""SQL functions and views for analysts: results equal the search service's, errors are clear."""

from __future__ import annotations

import subprocess
from typing import Any

import numpy as np
import psycopg
import pytest

from app.bootstrap import App
from app.db.embedded import binaries
from app.db.queries.nearest import literal
from app.search.filters import parse
from app.search.query_encoder import round_query, unit_direction
from app.types import Model, Query
from support.analysts import rows
from support.colours import photo
from support.paths import REPO
from support.shop import vectors

pytestmark = pytest.mark.xdist_group("analytics")  # the catalogue is filled once

FILTERS: list[tuple[list[str], dict[str, Any]]] = [
    ([], {}),
    (["brand=Kestrel"], {"brand": ["Kestrel"]}),
    (["brand=Kestrel", "brand=Solano", "category=mug"],
     {"brand": ["Kestrel", "Solano"], "category": ["mug"]}),
    (["colour=red", "year=2016..2019"], {"colour": ["red"], "min_year": 2016, "max_year": 2019}),
    (["price=10..60.5"], {"min_price": 10, "max_price": "60.5"}),
    (["year>=2021", "currency=EUR"], {"min_year": 2021, "currency": ["EUR"]}),
    (["packaged=1", "category=lamp"], {"attributes": '{"packaged": 1}', "category": ["lamp"]}),
    (["brand=nobody"], {"brand": ["nobody"]}),
]  # fmt: skip
TYPES = {"brand": "text[]", "category": "text[]", "colour": "text[]", "currency": "text[]",
         "min_year": "integer", "max_year": "integer", "min_price": "numeric",
         "max_price": "numeric", "attributes": "jsonb"}  # fmt: skip


def named(filters: dict[str, Any]) -> str:
    return "".join(f", {name} => CAST(%({name})s AS {TYPES[name]})" for name in filters)


def search_result(shop: App, **query: Any) -> list[tuple[int, str, float]]:
    result = shop.search.search(Query(**query))
    return [(m.rank, m.product.sku, m.similarity or 0.0) for m in result.matches]


# The same results


@pytest.mark.parametrize(("words", "filters"), FILTERS, ids=lambda value: str(value))
def test_a_search_by_vector_equals_the_search_service_exactly(
    shop: App, analyst: psycopg.Connection, words: list[str], filters: dict[str, Any]
) -> None:
    model = shop.catalog.model()
    random = np.random.default_rng(1)
    sql = f"""SELECT rank, sku, similarity FROM analytics.search_products(
        CAST(%(vec)s AS vector), %(k)s{named(filters)})"""
    for k in (1, 5, 40, 200):
        for query in (*vectors(shop, [1000 + k, 3]), *random.standard_normal((5, model.dim))):
            vector = np.asarray(query, dtype=np.float32) * np.float32(random.uniform(0.01, 50))
            expected = search_result(
                shop, vector=vector, model_id=model.id, k=k, filters=parse(words)
            )
            assert rows(analyst, sql, {"vec": literal(vector), "k": k, **filters}) == expected


@pytest.mark.parametrize(("words", "filters"), FILTERS, ids=lambda value: str(value))
def test_similar_products_equal_the_search_service_exactly(
    shop: App, analyst: psycopg.Connection, words: list[str], filters: dict[str, Any]
) -> None:
    sql = f"""SELECT rank, sku, similarity FROM analytics.similar_products(
        %(sku)s, %(k)s{named(filters)})"""
    for n in range(0, 90, 3):
        sku = f"DEMO-{n:04}"
        expected = search_result(shop, sku=sku, k=30, filters=parse(words))
        assert rows(analyst, sql, {"sku": sku, "k": 30, **filters}) == expected


def test_vectors_are_rounded_as_the_search_service_rounds_them(owner: psycopg.Connection) -> None:
    model = Model(0, "m", "1", 512, "f")
    for n, drawn in enumerate(np.random.default_rng(2).standard_normal((100, 512))):
        vector = (drawn * 10.0 ** (n % 7 - 3)).astype(np.float32)
        expected = round_query(unit_direction(vector), model)
        [(stored,)] = rows(
            owner, "SELECT analytics._rounded(CAST(%s AS vector)::real[])::vector::real[]",
            [literal(vector)],
        )  # fmt: skip
        assert np.array_equal(np.array(stored, np.float32), expected)


def test_components_too_small_for_the_arithmetic_count_as_zero(
    shop: App, analyst: psycopg.Connection
) -> None:
    model = shop.catalog.model()
    vector = np.full(model.dim, 1e-45, dtype=np.float32)
    vector[3] = 50
    results = rows(
        analyst, "SELECT rank, sku, similarity FROM analytics.search_products(CAST(%s AS vector))",
        [literal(vector)],
    )  # fmt: skip
    assert results == search_result(shop, vector=vector, model_id=model.id, k=10) != []


def test_an_embedding_is_compared_while_another_model_has_another_dimension(
    owner: psycopg.Connection,
) -> None:
    """In any join order of the planner, the function compares rows of the active model only."""
    sql = """SELECT count(*) FROM analytics.embeddings
        WHERE embedding <=> (%s)::halfvec < 0.5"""
    [(vector,)] = rows(owner, "SELECT embedding::text FROM analytics.embeddings LIMIT 1")
    expected = rows(owner, sql, [vector])
    [(other,)] = rows(owner, "SELECT register_model('other', '1', 3, 'other')")
    owner.execute(
        "INSERT INTO embedding (model_id, picture_id, vec) SELECT %s, id, '[1,0,0]' FROM picture",
        [other],
    )
    owner.execute("ANALYZE embedding")
    assert rows(owner, sql, [vector]) == expected != [(0,)]


def test_only_products_within_the_distance_are_returned(analyst: psycopg.Connection) -> None:
    every = rows(analyst, "SELECT sku, distance FROM analytics.similar_products('DEMO-0000', 1000)")
    assert len(every) == 89
    limit = every[20][1]
    near = rows(
        analyst, "SELECT sku, distance FROM analytics.similar_products('DEMO-0000', 1000, %s)",
        [limit],
    )  # fmt: skip
    assert near == [each for each in every if each[1] <= limit]


# Errors


@pytest.mark.parametrize(
    ("call", "message", "hint"),
    [
        ("similar_products('DEMO-0001', 0)", "rows asked for is 0", "1 or more"),
        ("similar_products('DEMO-0001', NULL)", "rows asked for is NULL", "1 or more"),
        ("similar_products('DEMO-0001', 5, 2.5)", "distance asked for is 2.5", "between 0"),
        ("similar_products('DEMO-0001', 5, 'NaN')", "distance asked for is NaN", "between 0"),
        ("similar_products('nobody')", "has the sku 'nobody'", "letter for letter"),
        ("similar_products(NULL)", "has the sku NULL", "letter for letter"),
        ("similar_products('DEMO-0001', min_year => 5, max_year => 4)", "ends before", "round"),
        ("similar_products('DEMO-0001', brand => '{Kestrel,NULL}')", "holds NULL", "Leave it out"),
        ("similar_products('DEMO-0001', currency => '{NULL}')", "holds NULL", "Leave it out"),
        ("similar_products('DEMO-0001', min_price => 'NaN')", "no number", "NULL is no bound"),
        ("similar_products('DEMO-0001', max_price => 'NaN')", "no number", "NULL is no bound"),
        ("similar_products('DEMO-0001', attributes => '[1]')", "no object: [1]", "packaged"),
        ("similar_products('DEMO-0001', attributes => 'null')", "no object: null", "packaged"),
        ("near_duplicate_pairs(category => '{lamp,NULL}')", "holds NULL", "Leave it out"),
        ("near_duplicate_pairs(neighbours => 2147483647)", "2147483647 neigh", "at most 900"),
        ("search_products('[1,2]')", "2 dimensions", "analytics.embeddings"),
        ("search_products(NULL)", "no dimensions", "analytics.embeddings"),
        ("search_products((array_fill(0, '{49}'))::real[]::vector)", "points nowhere", "direction"),
        ("near_duplicate_pairs(-0.1)", "distance asked for is -0.1", "between 0"),
        ("near_duplicate_pairs(0.1, neighbours => 0)", "rows asked for is 0", "1 or more"),
        ("near_duplicate_pairs(0.1, neighbours => 901)", "901 neighbours", "at most 900"),
        ("near_duplicate_pairs(0.1, max_shown_by => 0)", "rows asked for is 0", "1 or more"),
        ("without_look_alike(-0.1)", "distance asked for is -0.1", "between 0"),
        ("without_look_alike(category => '{lamp,NULL}')", "holds NULL", "Leave it out"),
        ("nearest_of_another_brand(brand => '{NULL}')", "holds NULL", "Leave it out"),
        ("compare('DEMO-0001', 'nobody')", "has the sku 'nobody'", "letter for letter"),
        ("centroid()", "Neither a category nor a brand", "centroid(brand =>"),
        ("centroid('sofa')", "category 'sofa'", "analytics.coverage"),
        ("centroid('lamp', 'nobody')", "category 'lamp' and brand 'nobody'", "analytics.coverage"),
        ("outliers('sofa')", "category 'sofa'", "analytics.coverage"),
        ("outliers('lamp', 0)", "rows asked for is 0", "1 or more"),
    ],
)
def test_an_invalid_argument_is_an_error_with_a_hint(
    analyst: psycopg.Connection, call: str, message: str, hint: str
) -> None:
    with pytest.raises(psycopg.DatabaseError) as refused:
        rows(analyst, f"SELECT * FROM analytics.{call}")
    assert message in (refused.value.diag.message_primary or "")
    assert hint in (refused.value.diag.message_hint or "")


def test_without_a_model_every_function_raises_an_error(owner: psycopg.Connection) -> None:
    owner.execute("UPDATE model SET active = false")
    for call in (
        "similar_products('DEMO-0001')", "search_products('[1]')", "near_duplicate_pairs()",
        "compare('DEMO-0001', 'DEMO-0002')", "centroid('lamp')", "outliers()",
    ):  # fmt: skip
        with (
            pytest.raises(psycopg.DatabaseError, match="No model is recorded"),
            owner.transaction(),
        ):
            owner.execute(f"SELECT * FROM analytics.{call}")


def test_the_error_for_a_product_without_an_embedding_names_it(owner: psycopg.Connection) -> None:
    owner.execute("INSERT INTO product (sku) VALUES ('BARE')")
    with pytest.raises(psycopg.DatabaseError, match="'BARE' has no picture"), owner.transaction():
        owner.execute("SELECT * FROM analytics.similar_products('BARE')")
    [row] = rows(
        owner, "SELECT distance, shared_pictures FROM analytics.compare('BARE', 'DEMO-0001')"
    )
    assert row == (None, 0)


# Views


def test_duplicate_groups_follow_identity_keys_and_verdicts(
    shop: App, owner: psycopg.Connection
) -> None:
    """A to E share a key, F has another; A and B are different, B and F the same product."""
    for sku, key, year in (("A", "k", 2020), ("B", "k", 2021), ("C", "k", 2021), ("D", "k", None),
                           ("E", "k", 2022), ("F", "l", 2019), ("G", "m", 2000), ("H", "", 1),
                           ("I", "", 1)):  # fmt: skip
        owner.execute(
            "INSERT INTO product (sku, title, identity_key, year) VALUES (%s, 't', %s, %s)",
            [sku, key, year],
        )
    for a, b, same in (("A", "B", False), ("B", "F", True), ("G", "H", True), ("A", "Z", False)):
        owner.execute(
            "INSERT INTO duplicate_verdict (sku_a, sku_b, same, decided_by)"
            " VALUES (%s, %s, %s, 'x')",
            [a, b, same],
        )
    results = rows(
        owner,
        """SELECT kept, sku, products, evidence FROM analytics.duplicate_groups
        WHERE length(sku) = 1 ORDER BY kept, sku""",
    )
    assert results == [
        ("B", "B", 2, "kept"), ("B", "F", 2, "verdict"),
        ("E", "A", 4, "another year"), ("E", "C", 4, "another year"),
        ("E", "D", 4, "another year"), ("E", "E", 4, "kept"),
        ("G", "G", 2, "kept"), ("G", "H", 2, "verdict"),
    ]  # fmt: skip


def test_coverage_adds_up_to_the_catalogue(analyst: psycopg.Connection) -> None:
    [sums] = rows(
        analyst,
        """SELECT sum(products), sum(with_picture), sum(with_embedding),
        sum(with_title), sum(with_colour), sum(with_price), sum(pictures), sum(embedded_pictures)
        FROM analytics.coverage""",
    )
    assert sums == (90, 90, 90, 90, 90, 67, 150, 150)
    [sums] = rows(
        analyst,
        "SELECT count(*), count(DISTINCT picture), min(position) FROM analytics.pictures",
    )
    assert sums == (150, 141, 0)
    assert rows(analyst, "SELECT count(*), count(DISTINCT picture) FROM analytics.embeddings") == [
        (150, 141)
    ]


def test_freshness_counts_the_changes_since_the_build_in_use(
    shop: App, analyst: psycopg.Connection, owner: psycopg.Connection
) -> None:
    sql = """SELECT build, rows_in_build, rows_in_table, changed_rows, gone_rows
        FROM analytics.freshness"""
    assert rows(analyst, sql) == [(None, None, 141, 141, 0)]
    build = shop.indexer.rebuild()
    assert rows(analyst, sql) == [(build.id, 141, 141, 0, 0)]
    owner.execute(
        "DELETE FROM embedding WHERE picture_id IN (SELECT min(picture_id) FROM embedding)"
    )
    owner.execute(
        "UPDATE embedding SET vec = vec WHERE picture_id IN (SELECT max(picture_id) FROM embedding)"
    )
    assert rows(owner, sql) == [(build.id, 141, 140, 1, 2)]
    [state] = rows(analyst, "SELECT state FROM analytics.index_builds")
    assert state == ("published",)


def test_every_object_of_the_schema_has_a_comment(owner: psycopg.Connection) -> None:
    """Views, functions and types; the row type of a view is covered by the comment of the view."""
    silent = rows(
        owner,
        """
        SELECT relname FROM pg_class WHERE relnamespace = 'analytics'::regnamespace
            AND relkind IN ('v', 'm', 'r') AND obj_description(oid, 'pg_class') IS NULL
        UNION ALL
        SELECT proname FROM pg_proc WHERE pronamespace = 'analytics'::regnamespace
            AND obj_description(oid, 'pg_proc') IS NULL
        UNION ALL
        SELECT typname FROM pg_type JOIN pg_class AS c ON c.oid = typrelid
        WHERE typnamespace = 'analytics'::regnamespace AND relkind = 'c'
            AND obj_description(pg_type.oid, 'pg_type') IS NULL""",
    )
    assert silent == []


def test_every_column_of_a_view_has_a_comment(owner: psycopg.Connection) -> None:
    silent = rows(
        owner,
        """SELECT c.relname, a.attname FROM pg_class AS c
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
        WHERE c.relnamespace = 'analytics'::regnamespace AND c.relkind IN ('v', 'm', 'c')
            AND col_description(c.oid, a.attnum) IS NULL""",
    )
    assert silent == []


def test_psql_output_equals_the_page_for_analysts(shop: App, owner: psycopg.Connection) -> None:
    commands = (
        "\\dv+ analytics.*",
        "\\df+ analytics.*",
        "\\dT+ analytics.*",
        "\\d+ analytics.products",
    )
    page = (REPO / "docs" / "analysts.md").read_text(encoding="utf-8")
    words = [word for each in commands for word in ("-c", each)]
    psql = [binaries.binary("psql"), "-X", "-P", "format=unaligned", *words]
    done = subprocess.run(
        [*psql, str(shop.settings.database_url)], capture_output=True, text=True, check=True
    )
    shown = " ".join(done.stdout.split())
    for (comment,) in rows(
        owner,
        """SELECT obj_description(oid, 'pg_class') FROM pg_class
        WHERE relnamespace = 'analytics'::regnamespace AND relkind = 'v'
        UNION ALL SELECT obj_description(oid, 'pg_proc') FROM pg_proc
        WHERE pronamespace = 'analytics'::regnamespace AND proname !~ '^_'
        UNION ALL SELECT obj_description('analytics.match'::regtype, 'pg_type')
        UNION ALL SELECT col_description('analytics.products'::regclass, 10)""",
    ):
        assert comment in shown
    assert all(each.split()[0] in page for each in commands)


def test_a_similarity_is_the_same_with_an_index(shop: App, analyst: psycopg.Connection) -> None:
    shop.indexer.rebuild()
    expected = search_result(shop, picture=photo(77), k=20)
    [vector] = vectors(shop, [77])
    sql = """SELECT rank, sku, similarity
        FROM analytics.search_products(CAST(%s AS vector), 20)"""
    assert rows(analyst, sql, [literal(vector)]) == expected
