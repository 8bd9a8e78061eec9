"""The catalogue page: counts, ingests, rejects and failed checks."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
import streamlit as st
from streamlit.runtime.caching import cache_utils
from streamlit.testing.v1 import AppTest

from app.bootstrap import App
from app.duplicates.verdicts import decide
from app.operations.catalog_stats import CatalogContents, ingest_rejects, overview
from app.operations.health import HealthCheck
from app.ui.csv_export import csv_bytes
from support.shop import add, numbered
from support.sources import ingest, write_csv, write_photos

ODD = "<img src=x onerror=alert(1)> *b* $x$ :red[no]"


def health() -> None:
    """The script that Streamlit runs."""
    from app.ui.views import catalogue as catalogue_view

    catalogue_view.show()


def drawn() -> AppTest:
    page = AppTest.from_function(health, default_timeout=300).run()
    assert not page.exception
    return page


def counted(page: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in page.metric}


def test_everything_is_counted(catalogue: App, sql: psycopg.Connection) -> None:
    add(catalogue, {"A": [1], "B": [1, 2], "C": [3], "D": []})
    sql.execute("UPDATE product SET identity_key = '1|x' WHERE sku IN ('A', 'C')")
    sql.execute("DELETE FROM embedding WHERE picture_id = (SELECT max(id) FROM picture)")
    decide(catalogue.engine, "A", "C", True, "Ada")
    assert counted(drawn()) == {
        "Products": "4", "Pictures": "3", "Not embedded": "1", "Without a picture": "1",
        "Sharing a picture": "2", "Same words": "2", "Pairs judged": "1",
    }  # fmt: skip


def test_visits_within_a_minute_count_once(catalogue: App, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(cache_utils, "TTLCACHE_TIMER", lambda: now[0])
    st.cache_resource.clear()
    add(catalogue, numbered(3))
    assert counted(drawn())["Products"] == "3"
    add(catalogue, {"NEW": [7]})
    now[0] += 59
    page = drawn()
    assert counted(page)["Products"] == "3"
    assert "counted again after 60 seconds" in page.caption[0].value
    now[0] += 2
    assert counted(drawn())["Products"] == "4"


def test_embeddings_are_counted_by_model_the_active_one_first(
    catalogue: App, sql: psycopg.Connection
) -> None:
    add(catalogue, numbered(3))
    sql.execute("SELECT register_model('other', '1', 8, 'f')")
    table = drawn().dataframe[0].value
    assert table["model"].tolist() == ["colours", "other"]
    assert table["embeddings"].tolist() == [3, 0]


def test_a_failed_check_is_shown_with_advice(catalogue: App) -> None:
    add(catalogue, numbered(3))
    page = drawn()
    assert "Needs attention" in [heading.value for heading in page.subheader]
    assert "No index is built; pgvector answers. Run `lookalike index rebuild`." in html(page)


def html(page: AppTest) -> str:
    return "".join(element.proto.body for element in page.get("html"))


def test_a_healthy_catalogue_is_reported_as_well(catalogue: App) -> None:
    add(catalogue, numbered(3))
    catalogue.indexer.rebuild()
    assert "Healthy" in [heading.value for heading in drawn().subheader]


def test_an_empty_catalogue_says_how_to_fill_it(catalogue: App) -> None:
    page = drawn()
    assert "The catalogue is empty" in page.info[0].value
    assert "No ingest yet." in [text.value for text in page.markdown]


def test_a_database_without_tables_says_what_to_do(
    catalogue: App, empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_DATABASE_URL", empty_url)
    assert "Run `lookalike init` first" in html(drawn())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two good rows, one with markup in its title, and two that are refused."""
    write_photos(tmp_path, [1, 2])
    rows = [
        {"sku": "A", "title": ODD, "images": "1.png"},
        {"sku": "B", "title": "lamp", "images": "2.png"},
        {"sku": f"C {ODD}", "title": "lamp", "images": "none.png"},
        {"sku": "", "title": "nameless", "images": "1.png"},
    ]
    return write_csv(tmp_path / "catalogue.csv", rows)


def test_runs_are_listed_with_their_counts_newest_first(catalogue: App, source: Path) -> None:
    ingest(catalogue, source)
    ingest(catalogue, source)
    runs = next(table.value for table in drawn().dataframe if "state" in table.value)
    assert runs["run"].tolist() == [2, 1]
    assert runs["added"].tolist() == [0, 2] and runs["unchanged"].tolist() == [2, 0]


def test_a_failed_run_is_listed_with_its_reason(catalogue: App, sql: psycopg.Connection) -> None:
    sql.execute("INSERT INTO ingest_run (source, state, report)"
                " VALUES ('x.csv', 'failed', '{\"reason\": \"the disk is full\"}')")  # fmt: skip
    assert "the disk is full" in drawn().dataframe[1].value["reason"].tolist()


def test_rejects_of_a_run_are_listed_with_the_reason(catalogue: App, source: Path) -> None:
    ingest(catalogue, source)
    refused = drawn().dataframe[-1].value
    assert refused["SKU"].tolist()[0] == f"C {ODD}"
    assert "no file 'none.png'" in refused["reason"].tolist()[0]


def test_another_run_can_be_chosen(catalogue: App, source: Path, sql: psycopg.Connection) -> None:
    ingest(catalogue, source)
    sql.execute("INSERT INTO ingest_run (source) VALUES ('later.csv')")
    sql.execute("INSERT INTO ingest_reject (run_id, reason) VALUES (2, 'later')")
    page = drawn()
    assert page.dataframe[-1].value["reason"].tolist() == ["later"]
    page.selectbox[0].select_index(1).run()
    assert len(page.dataframe[-1].value) == 2


def test_a_long_list_of_rejects_is_cut_with_a_note(catalogue: App, sql: psycopg.Connection) -> None:
    sql.execute("INSERT INTO ingest_run (source) VALUES ('x.csv')")
    sql.execute("INSERT INTO ingest_reject (run_id, line, reason)"
                " SELECT 1, n, 'no' FROM generate_series(1, 1200) AS n")  # fmt: skip
    page = drawn()
    assert len(page.dataframe[-1].value) == 1000
    assert "first 1,000 of 1,200" in page.caption[-1].value.replace("\\", "")


def test_rejects_are_read_up_to_the_limit(catalogue: App, sql: psycopg.Connection) -> None:
    sql.execute("INSERT INTO ingest_run (source) VALUES ('x.csv')")
    sql.execute("INSERT INTO ingest_reject (run_id, line, reason)"
                " SELECT 1, n, 'no' FROM generate_series(1, 9) AS n")  # fmt: skip
    assert [reject.line for reject in ingest_rejects(catalogue.engine, 1, 3)] == [1, 2, 3]


def test_counts_and_checks_are_of_one_snapshot_and_agree(catalogue: App) -> None:
    add(catalogue, numbered(4))
    found = overview(catalogue.engine, catalogue.files, catalogue.settings)
    checks = {check.name: check.value for check in found.status.checks}
    assert found.contents is not None
    assert checks["products"] == found.contents.counts.products == 4


def test_the_rows_of_a_large_catalogue_are_estimated(
    catalogue: App, sql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(catalogue, numbered(5))
    monkeypatch.setattr("app.db.queries.catalog_stats.COUNTED_ROWS", 4)
    status, _ = overview_parts(catalogue)
    assert status["products"].value == "about 5", "counted where there are no statistics yet"
    assert status["embeddings"].ok
    sql.execute("VACUUM ANALYZE product, picture, embedding")
    sql.execute("DELETE FROM embedding WHERE picture_id IN (SELECT max(id) FROM picture)")
    monkeypatch.setattr("app.db.queries.catalog_stats.COUNTED_ROWS", 5)
    status, contents = overview_parts(catalogue)
    assert (status["products"].value, status["embeddings"].ok) == (5, False)
    assert (contents.counts.without_embedding, contents.counts.same_words) == (1, 0)
    monkeypatch.setattr("app.db.queries.catalog_stats.COUNTED_ROWS", 4)
    status, contents = overview_parts(catalogue)
    assert (status["products"].value, status["pictures"].value) == ("about 5", "about 5")
    assert not status["embeddings"].ok
    assert "1 of the newest 100,000 pictures have no" in str(status["embeddings"].advice)
    assert contents.counts.estimated and contents.counts.without_embedding == 1
    assert contents.counts.same_words is None
    page = drawn()
    shown = {metric.label: metric.value for metric in page.metric}
    assert shown["Products"] == "about 5" and shown["Not embedded"] == "1"
    assert "Same words" not in shown and "Pairs judged" in shown
    assert any("is not counted" in caption.value for caption in page.caption)


def overview_parts(catalogue: App) -> tuple[dict[str, HealthCheck], CatalogContents]:
    """The checks by name, and the contents."""
    found = overview(catalogue.engine, catalogue.files, catalogue.settings)
    assert found.contents is not None
    return {check.name: check for check in found.status.checks}, found.contents


def test_rejects_are_no_formulas_in_a_spreadsheet() -> None:
    row = {"line": 2, "sku": "=HYPERLINK(1)", "image": "@x", "reason": "a - b"}
    assert csv_bytes(tuple(row), [row]).decode().splitlines()[1] == "2,'=HYPERLINK(1),'@x,a - b"
