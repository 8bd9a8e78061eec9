"""Random queries find the same in a build in parts, in one file and by comparing all pictures.

More catalogues and queries: PARTS_CATALOGUES=0:60 PARTS_QUERIES=40.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random

import psycopg
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.bootstrap import App
from app.index import faiss_index, recall
from app.search import similarity_labels
from app.types import Filters, Query, SearchResult
from support.random_shop import CLUSTERS, picture_vector, refill
from support.two_forms import BothForms, answered, small_parts

CATALOGUES = range(*map(int, os.environ.get("PARTS_CATALOGUES", "0:2").split(":")))
QUERIES = int(os.environ.get("PARTS_QUERIES", "7"))

columns = st.fixed_dictionaries(
    {},
    optional={
        "category": st.sampled_from(["blazer", "Blazers", ["blazer", "shirt"], "none"]),
        "colour": st.sampled_from(["red", "blue", ["Red", "red"]]),
        "brand": st.sampled_from(["Kestrel", ["Kestrel", "kestrel"]]),
    },
)
filters = st.one_of(
    st.just(Filters()),
    st.builds(Filters, columns, at_least=st.sampled_from([{}, {"year": 2020}, {"year": 2021}])),
)
options = st.builds(
    Query,
    k=st.sampled_from([1, 2, 3, 5, 12]),
    filters=filters,
    fold=st.booleans(),
    near_query=st.sampled_from([None, None, 1e-3, 0.1]),
    near_match=st.sampled_from([None, None, 1e-3, 0.1]),
    min_similarity=st.sampled_from([None, None, -1.0, 0.8]),
)
asked_for = st.integers(0, 4 * CLUSTERS + 20)
"""A picture, or if it is no number of one, a product."""


@contextmanager
def retired(sql: psycopg.Connection, *builds: int) -> Iterator[None]:
    """Searches do without these builds."""
    update = "UPDATE index_build SET state = %s WHERE id = ANY(%s)"
    sql.execute(update, ["retired", list(builds)])
    try:
        yield
    finally:
        sql.execute(update, ["published", list(builds)])


def pages(app: App, query: Query, count: int) -> list[SearchResult]:
    found, shown = list[SearchResult](), tuple[str, ...]()
    for _ in range(count):
        found.append(app.search.search(replace(query, shown=shown)))
        shown += tuple(match.product.sku for match in found[-1].matches)
    return found


@dataclass(frozen=True, slots=True)
class Compared:
    """A catalogue with both forms of its index, and how its searches were answered."""

    app: App
    sql: psycopg.Connection
    forms: BothForms
    skus: Sequence[str]
    exactly: bool
    paths: Counter[tuple[str, bool]]

    def compare(self, query: Query, wanted: int, count: int) -> None:
        """Some pages of the results of a query, for the picture or product `wanted`."""
        if wanted < 4 * CLUSTERS:
            vector = picture_vector(wanted, self.app.encoder().dim)
            query = replace(query, vector=vector, model_id=1)
        else:
            query = replace(query, sku=self.skus[wanted % len(self.skus)])
        parts, one = self.forms.parts.id, self.forms.one.id
        found = pages(self.app, query, count)
        with retired(self.sql, parts):
            in_one_file = pages(self.app, query, count)
            with retired(self.sql, one):
                scanned = pages(self.app, query, count)
        self.paths.update((each.plan.path, each.plan.build == parts) for each in found)
        assert {each.plan.build for each in found} <= {parts, None}
        assert [answered(each) for each in found] == [answered(each) for each in in_one_file]
        assert {each.plan.path for each in scanned} == {"exact"}
        if self.exactly:
            assert [answered(each) for each in found] == [answered(each) for each in scanned]


def random_queries(catalogue: Compared) -> None:
    @hypothesis_settings(max_examples=QUERIES, deadline=None, database=None)
    @given(options, asked_for, st.integers(1, 3))
    def compare(query: Query, wanted: int, count: int) -> None:
        catalogue.compare(query, wanted, count)

    compare()


def test_parts_one_file_and_an_exact_scan_find_the_same(
    app: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a delta, and vectors as the table has them; in two of three catalogues all lists are
    searched, in the others parts and one file are compared."""
    small_parts(monkeypatch)
    monkeypatch.setattr(similarity_labels, "FRESH_S", 0.0)  # each catalogue has calibrations
    monkeypatch.setattr(faiss_index, "CODES", (faiss_index.FLOAT16,))
    # So that filters search the index.
    sql.execute("INSERT INTO tuning (model_id, exact_pictures, deep_share) VALUES (1, 1, 0.5)")
    indexer, paths = app.indexer, Counter[tuple[str, bool]]()
    for number in CATALOGUES:
        exactly = number % 3 != 2
        monkeypatch.setattr(recall, "MIN_NPROBE", 1_000_000 if exactly else 1)
        app.__dict__["indexer"] = indexer
        forms = BothForms(app, part_rows=5 + number % 11)
        skus = refill(app, sql, Random(number))
        assert len(forms.parts.parts) > 1 and forms.parts.index_kind == forms.one.kind == "ivf"
        random_queries(Compared(app, sql, forms, skus, exactly, paths))
    assert paths["faiss", True] and paths["faiss-filtered", True], paths
