"""A build in parts answers as one in a single file, and its files are kept as that one's."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import psycopg
import pytest

from app.bootstrap import App
from app.config import Settings
from app.db.queries import index_builds
from app.index import builder as builders
from app.index import faiss_index, file_store, kmeans, part_builder, recall
from app.index.builder import Indexer
from app.index.faiss_index import AnnIndex
from app.index.id_selectors import ExcludedIds, IdSelector
from app.index.parted_index import LocalParts, PartedIndex
from app.operations.integrity.findings import Finding
from app.operations.integrity.index import find
from app.types import Build, BuildPart, Filters, Query
from support import random_catalogue
from support.cluster_runs import vectors_by_list
from support.colours import choose_colours
from support.paths import REPO
from support.random_shop import random_query, refill
from support.region_colours import choose_region_colours
from support.scenes import FIRST, SECOND, sku, two
from support.shop import add, numbered
from support.two_forms import BothForms, answered, by_list, small_parts

FILTERS = (
    Filters(), Filters({"category": "blazer"}), Filters({"colour": "red"}),
    Filters({"brand": "Kestrel"}),
)  # fmt: skip


@pytest.fixture
def forms(app: App, monkeypatch: pytest.MonkeyPatch) -> BothForms:
    small_parts(monkeypatch)
    return BothForms(app)


@pytest.mark.parametrize("seed", range(2))
def test_answers_in_parts_equal_those_of_one_file(
    app: App, forms: BothForms, sql: psycopg.Connection, seed: int
) -> None:
    """With a delta, pages, folds, filters and products as queries."""
    random = Random(seed)
    skus = refill(app, sql, random)
    assert len(forms.parts.parts) > 1 and forms.parts.rows == forms.one.rows
    queries = []
    for _ in range(12):
        query = replace(random_query(app, random, skus), filters=random.choice(FILTERS))
        first = app.search.search(query)
        shown = tuple(match.product.sku for match in first.matches)
        queries += [query, replace(query, shown=shown)]
    found = [app.search.search(query) for query in queries]
    by_parts = {each.plan.path for each in found if each.plan.build == forms.parts.id}
    assert {"faiss", "faiss-filtered"} <= by_parts
    with forms.only_one_file(sql):
        expected = [app.search.search(query) for query in queries]
    assert any(each.plan.build == forms.one.id for each in expected)
    assert [answered(each) for each in found] == [answered(each) for each in expected]


@pytest.mark.parametrize("code", faiss_index.CODES, ids=lambda code: f"{code.kind}-{code.bits}")
def test_what_parts_nominate_is_what_one_index_nominates(code: faiss_index.Code) -> None:
    """With ties across parts, selectors and exclusions. FAISS skips compressed vectors by the best
    of those that it has seen, of which a part sees fewer: parts find as much or more."""
    random = np.random.default_rng(3)
    rows = random.standard_normal((40, 32))[random.integers(0, 40, 3000)]
    rows += 0.6 * random.standard_normal(rows.shape)
    rows[100:130] = rows[2000:2030] = rows[100]
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    ids = np.arange(1, 3001, dtype=np.int64) * 3
    centroids = kmeans.train(rows, 100)

    def index_of(part: slice) -> AnnIndex:
        index = faiss_index.inverted_lists(centroids, code)
        faiss_index.add(index, ids[part], rows[part])
        return index.with_parameters({**index.parameters, "nprobe": {"10": 12}})

    one = index_of(slice(None))
    parts = [index_of(slice(*each)) for each in pairwise((0, 900, 2100, 3000))]
    described = [BuildPart(n, "", 0, part.rows, 0, 0) for n, part in enumerate(parts)]
    parted = PartedIndex(code.kind, 32, one.parameters, described, LocalParts(parts))
    assert (parted.rows, parted.dim, parted.probed_share(10)) == (3000, 32, one.probed_share(10))
    queries = rows[::100]
    selectors = (None, IdSelector(ids[random.random(3000) < 0.2]), IdSelector(ids[5:9]))
    exclusions = (None, ExcludedIds(ids[random.random(3000) < 0.1]))
    for selector in selectors:
        for excluded in exclusions:
            for k, depth in ((0, 1), (10, 10), (60, 10), (60, 500), (4000, 10)):
                options = {"selector": selector, "excluded": excluded}
                expected, expected_ids = one.search(queries, k, depth, **options)
                found, found_ids = parted.search(queries, k, depth, **options)
                present = expected_ids != -1
                if code.kind == "ivf":
                    assert (found[present] == expected[present]).all()
                    assert ((found_ids != -1) == present).all()
                assert (found[present] >= expected[present]).all()
                wanted = one.nominate_each(queries, k, depth, **options)
                for each, other in zip(parted.nominate_each(queries, k, depth, **options), wanted,
                                       strict=True):  # fmt: skip
                    assert (each.known, each.cutoff is None, each.missing) == (
                        other.known, other.cutoff is None, (),
                    )  # fmt: skip
                    if code.kind == "ivf":
                        assert each.cutoff == other.cutoff


def test_parts_hold_the_rows_of_one_file_by_ranges_of_ids(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_parts(monkeypatch)
    monkeypatch.setattr(part_builder, "BLOCK_ROWS", 30)
    monkeypatch.setattr(part_builder, "KEPT_BYTES", 0)  # one part in memory at a time
    random_catalogue.fill(app, 400)
    forms = BothForms(app, part_rows=150)
    forms.rebuild()
    parts = forms.parts.parts
    assert [part.rows for part in parts] == [135, 135, 130]
    assert vectors_by_list(app, forms.parts) == vectors_by_list(app, forms.one)
    assert forms.parts.kind == f"{forms.one.kind}-parts"
    figures = ("rows", "recall_at_10", "recall_filtered", "recall_sample")
    assert [getattr(forms.parts, each) for each in figures] == [
        getattr(forms.one, each) for each in figures
    ]
    assert forms.parts.parameters["nprobe"] == forms.one.parameters["nprobe"]
    for part, file in zip(parts, forms.parts.files, strict=True):
        ids = [row[1] for row in by_list(app.files.read(file))]
        assert (min(ids), max(ids)) == (part.first, part.last)


def test_a_damaged_or_missing_part_is_fetched_from_the_database(
    app: App, forms: BothForms, sql: psycopg.Connection
) -> None:
    refill(app, sql, Random(0))
    first, second, *_ = forms.parts.files
    app.files.path(first.sha256).write_bytes(b"damaged")
    app.files.path(second.sha256).unlink()
    app.search.open_index()
    assert app.files.opened(forms.parts) is not None
    for file in (first, second):
        assert file_store.is_intact(app.files.path(file.sha256), file.sha256)
    app.files.check(forms.parts)
    app.files.path(first.sha256).unlink()
    assert [(each.kind, each.examples) for each in found(app, repair=True)] == [
        ("index-files-missing", (f"{forms.parts.id} (part 1)",))
    ]
    assert found(app, repair=False) == []
    sql.execute("UPDATE index_chunk SET data = 'x' WHERE build_id = %s AND number >= %s",
                [forms.parts.id, index_builds.PART_CHUNKS])  # fmt: skip
    damaged = found(app, repair=True)
    assert {each.kind for each in damaged} == {"index-chunks-damaged"} and len(damaged) > 1
    assert found(app, repair=False) == []


def found(app: App, *, repair: bool) -> list[Finding]:
    return list(find(app.engine, app.files, repair, lambda message: None))


def test_files_of_parts_are_deleted_with_their_build(
    app: App, forms: BothForms, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stored() -> set[str]:
        return {path.stem for path in app.files.folder.glob("*.faiss")}

    def of(*builds: Build) -> set[str]:
        return {file.sha256 for build in builds for file in build.files}

    refill(app, sql, Random(1))
    before = forms.parts
    assert stored() == of(forms.one, before)
    with monkeypatch.context() as patch:  # killed before it is published
        patch.setattr(Indexer, "_finish", _killed)
        patch.setattr(Indexer, "_reject", lambda *_: None)
        patch.setattr(part_builder.PartBuilder, "remove", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            forms._parts.rebuild()
    assert stored() > of(before)
    sql.execute("UPDATE product SET title = 'x'")
    forms.rebuild()
    assert stored() == of(forms.one, forms.parts)
    with monkeypatch.context() as patch:  # below the goal
        patch.setattr(builders._MeasuredIndex, "shortfall", lambda *_: "too low")
        sql.execute("DELETE FROM embedding WHERE picture_id = (SELECT min(id) FROM picture)")
        assert forms._parts.rebuild().state == "rejected"
    assert stored() == of(forms.one, forms.parts)
    forms.rebuild()
    chunks = sql.execute("SELECT DISTINCT build_id FROM index_chunk ORDER BY 1").fetchall()
    assert chunks == [(forms.one.id,), (forms.parts.id,)]


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_photo_with_objects_finds_in_parts_what_one_file_finds(
    settings: Settings, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the statement of all lists, with a filter in several, with pages and with a delta."""
    small_parts(monkeypatch)
    with App(settings, choose=choose_region_colours) as app:
        forms = BothForms(app, part_rows=90)
        add(app, numbered(200), category="blazer")
        add(app, numbered(100, 200), category="shirt")
        forms.rebuild()
        add(app, numbered(4, 300), category="blazer")
        queries = [
            Query(picture=two(), k=k, fold=fold, filters=filters, shown=shown)
            for k, fold in ((3, True), (5, False))
            for filters in (Filters(), Filters({"category": "blazer"}))
            for shown in ((), (sku(FIRST), sku(SECOND), sku(301)))
        ]
        found = [app.search.search(query) for query in queries]
        paths = {each.plan.path for each in found if each.plan.build == forms.parts.id}
        assert paths == {"faiss", "faiss-filtered"}
        assert {len(each.regions) for each in found} == {2}
        with forms.only_one_file(sql):
            expected = [app.search.search(query) for query in queries]
        assert forms.one.id in {each.plan.build for each in expected}
        assert [answered(each) for each in found] == [answered(each) for each in expected]


WITHOUT_RAY = """
import sys
sys.modules["ray"] = None
from app.bootstrap import App
from app.config import Settings
from app.types import Query
from support.colours import choose_colours

with App(Settings.model_validate_json(sys.argv[1]), choose=choose_colours) as app:
    app.search.open_index()
    plan = app.search.search(Query(sku="7", k=3)).plan
    print(plan.path, plan.build)
"""


def test_a_process_without_ray_opens_and_searches_a_build_in_parts(
    app: App, forms: BothForms
) -> None:
    random_catalogue.fill(app, 24)
    build = forms.rebuild()
    program = subprocess.run(
        [sys.executable, "-c", WITHOUT_RAY, app.settings.model_dump_json()],
        env=os.environ | {"PYTHONPATH": f"{REPO}{os.pathsep}{REPO / 'tests'}"},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    assert program.stdout == f"faiss {build.id}\n"


def test_a_cluster_is_named_and_ray_is_missing(
    settings: Settings, app: App, forms: BothForms, monkeypatch: pytest.MonkeyPatch
) -> None:
    random_catalogue.fill(app, 24)
    forms.rebuild()
    monkeypatch.setitem(sys.modules, "ray", None)
    named = settings.model_copy(update={"search_on": "ray://127.0.0.1:1"})
    with App(named, choose=choose_colours) as other:
        other.search.open_index()
        query = Query(sku="7", k=3)
        found, expected = (each.search.search(query) for each in (other, app))
    assert found.plan.path == "exact" and found.matches == expected.matches
    assert "pip install 'lookalike[ray]'" in found.plan.reason


def test_a_code_that_is_given_up_leaves_the_files_of_a_published_build(
    app: App, forms: BothForms, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal rows in the same code give equal files."""
    refill(app, sql, Random(1))
    small, large = faiss_index.CODES[0], faiss_index.CODES[-1]
    monkeypatch.setattr(builders._MeasuredIndex, "shortfall", lambda *_: None)
    monkeypatch.setattr(faiss_index, "codes", lambda rows: (small,))
    published = forms.rebuild()
    tune = recall.tune

    def given_up(index: Any, *arguments: Any) -> Any:
        return tune(index, *arguments) if index.kind == large.kind else None

    monkeypatch.setattr(recall, "tune", given_up)
    monkeypatch.setattr(faiss_index, "codes", lambda rows: (small, large))
    newest = forms._parts.rebuild()
    assert newest.index_kind == large.kind != published.index_kind
    for file in (*published.files, *newest.files):
        assert file_store.is_intact(app.files.path(file.sha256), file.sha256)
