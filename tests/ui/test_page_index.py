"""The index page: builds, delta, and a rebuild that continues after a reload."""

from __future__ import annotations

import psycopg
import pytest
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import Block

from app.bootstrap import App
from app.config import Settings
from app.db.locks import LockKey
from app.errors import BuildRunning
from app.index.status import index_status
from app.ui.shared import services
from support.servers import wait_until
from support.shop import add, numbered


def index() -> None:
    """The script that Streamlit runs."""
    from app.ui.views import index as index_view

    index_view.show()


def drawn() -> AppTest:
    page = AppTest.from_function(index, default_timeout=300).run()
    assert not page.exception
    return page


def counted(page: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in page.metric}


def rebuilt(page: AppTest) -> AppTest:
    """The page after its button was pressed and the build has ended."""
    page.button[0].click().run()
    wait_until(lambda: not services().background_build.progress.running, "the build does not end")
    return page.run()


def test_the_build_in_use_and_the_size_of_the_delta_are_shown(catalogue: App) -> None:
    add(catalogue, numbered(5))
    catalogue.indexer.rebuild()
    add(catalogue, numbered(2, first=5))
    shown = counted(drawn())
    assert (shown["In use"], shown["Pictures"], shown["Changed since"]) == ("build 1", "5", "2")
    assert shown["Recall@10"] == "1.000"


def test_without_an_index_the_page_shows_that_pgvector_answers(catalogue: App) -> None:
    add(catalogue, numbered(5))
    page = drawn()
    assert "pgvector answers" in page.info[0].value
    assert counted(page) == {"Embeddings": "5"}


def test_builds_are_listed_newest_first_with_state_and_reason(
    catalogue: App, sql: psycopg.Connection
) -> None:
    add(catalogue, numbered(5))
    catalogue.indexer.rebuild()
    sql.execute("INSERT INTO index_build (model_id, cluster, state, reason)"
                " SELECT id, '', 'rejected', 'recall@10 is 0.5' FROM model")  # fmt: skip
    table = drawn().dataframe[0].value
    assert table["build"].tolist() == [2, 1]
    assert table["state"].tolist() == ["rejected", "published"]
    assert table["reason"].tolist()[0] == "recall@10 is 0.5"


def test_recall_size_and_delta_have_charts(catalogue: App) -> None:
    add(catalogue, numbered(5))
    catalogue.indexer.rebuild()
    assert len(drawn().get("vega_lite_chart")) == 3


def test_the_thresholds_of_the_delta_come_from_the_settings(
    catalogue: App, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(catalogue, numbered(5))
    catalogue.indexer.rebuild()
    few = settings.model_copy(update={"max_delta_rows": 3, "worker_share": 0.2})
    add(catalogue, numbered(9, first=5))
    delta = index_status(catalogue.engine, few).delta
    assert (delta.rows, delta.max_rows, delta.worker_rows) == (4, 3, 1.0)
    monkeypatch.setenv("LOOKALIKE_MAX_DELTA_ROWS", "3")
    assert counted(drawn())["Changed since"] == "over 3"


def test_the_button_builds_as_the_command_does(catalogue: App, sql: psycopg.Connection) -> None:
    add(catalogue, numbered(5))
    page = rebuilt(drawn())
    assert page.success[0].value.startswith("Build 1: 5 pictures in ")
    assert sql.execute("SELECT state FROM index_build").fetchall() == [("published",)]


def test_what_still_runs_has_no_tick_and_moves_no_chart(catalogue: App) -> None:
    add(catalogue, numbered(5))
    catalogue.indexer.rebuild()
    page = drawn()
    before = places(page)
    with psycopg.connect(str(catalogue.settings.database_url)) as other:
        other.execute("LOCK TABLE index_chunk IN ACCESS EXCLUSIVE MODE")
        page.button[0].click().run()
        wait_until(
            lambda: "Writing the index file" in services().background_build.progress.steps,
            "the build does not come to its last step",
        )
        [shown] = page.run().status
        assert (shown.state, shown.label) == ("running", "Writing the index file …")
        assert [step.value.split(" ")[0] for step in shown.markdown] == [":material/check:"] * 3
        assert places(page) == before
    wait_until(lambda: not services().background_build.progress.running, "the build does not end")
    assert (places(page.run()), len(page.status)) == (before, 0)


def places(page: AppTest) -> dict[int, int]:
    """How many charts each part of the page has, by its place."""
    return {
        place: len(part.get("vega_lite_chart"))
        for place, part in page.main.children.items()
        if isinstance(part, Block)
    }


def test_sizes_are_those_of_the_command_line(catalogue: App) -> None:
    add(catalogue, numbered(5))
    size = catalogue.indexer.rebuild().size
    assert counted(drawn())["Size"] == f"{size / 1000:.1f} kB"


def test_while_another_process_builds_the_page_shows_it(
    catalogue: App, sql: psycopg.Connection
) -> None:
    sql.execute("SELECT pg_advisory_lock(%s)", [LockKey.INDEX_BUILD.value])
    assert rebuilt(drawn()).warning[0].value.replace("\\", "") == str(BuildRunning())


def test_a_build_that_is_not_published_shows_why(catalogue: App, sql: psycopg.Connection) -> None:
    add(catalogue, numbered(5))
    sql.execute("ALTER TABLE embedding DISABLE TRIGGER embedding_stamp")
    assert "stamp" in rebuilt(drawn()).warning[0].value


@pytest.mark.parametrize(("setting", "value"), [("REBUILD", "false"), ("READ_ONLY", "true")])
def test_a_public_page_has_no_button(
    catalogue: App, monkeypatch: pytest.MonkeyPatch, setting: str, value: str
) -> None:
    monkeypatch.setenv(f"LOOKALIKE_PAGE_{setting}", value)
    assert not drawn().button


def test_with_sign_in_configured_only_signed_in_users_may_rebuild(catalogue: App) -> None:
    page = AppTest.from_function(index, default_timeout=300)
    for signed_in, buttons in ((False, 0), (True, 1)):
        page.user = {"is_logged_in": signed_in, "email": "ada@shop.test"}
        assert len(page.run().button) == buttons


def test_a_database_without_tables_is_an_error_message(
    catalogue: App, empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_DATABASE_URL", empty_url)
    assert "lookalike init" in drawn().error[0].value


def test_a_rebuild_reports_its_steps_and_a_second_start_joins_it(
    app: App, sql: psycopg.Connection
) -> None:
    add(app, numbered(5))
    with psycopg.connect(str(app.settings.database_url)) as other:
        other.execute("LOCK TABLE embedding IN ACCESS EXCLUSIVE MODE")
        app.background_build.start()
        wait_until(lambda: len(app.background_build.progress.steps) > 1, "the build does not begin")
        app.background_build.start()
        assert app.background_build.progress.steps == ("Preparing", "Reading all embeddings")
    wait_until(lambda: not app.background_build.progress.running, "the build does not end")
    assert app.background_build.progress.steps[2:] == (
        "Building an index of 5 pictures and measuring its recall", "Writing the index file",
    )  # fmt: skip
    assert sql.execute("SELECT count(*) FROM index_build").fetchone() == (1,)
