"""A catalogue filled by version 1 of the embedded encoder goes on, and changes to the newest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.bootstrap import App
from app.config import Settings
from app.encoders.base import EMBEDDED, EncoderChoice
from app.encoders.embedded_versions import NEWEST
from app.encoders.loading import choose_encoder
from app.models.backfill import embed
from app.operations.health import status
from app.types import Query
from ingest.originals import Originals
from support.colours import photo
from support.sources import ingest, write_source

ROWS = 12


def choose_former(model: str, **_: Any) -> EncoderChoice:
    """What an installation of version 1 loaded."""
    return choose_encoder(EMBEDDED, revision="1-848d92bb4f69")


@pytest.fixture
def settings(empty_url: str, tmp_path: Path) -> Settings:
    """Settings with a database without any model."""
    return Settings(home=tmp_path / "home", database_url=empty_url)


@pytest.fixture
def open_app(settings: Settings) -> Iterator[Callable[..., App]]:
    apps: list[App] = []

    def open_(*arguments: Any, **changes: Any) -> App:
        values = {"model": EMBEDDED} | changes
        apps.append(App(settings.model_copy(update=values), *arguments))
        return apps[-1]

    yield open_
    for each in apps:
        each.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "in", ROWS)


@pytest.fixture
def filled(settings: Settings, source: Path) -> None:
    """A catalogue under version 1, indexed."""
    former = settings.model_copy(update={"model": EMBEDDED})
    with App(former, choose=choose_former) as app:
        app.initialise()
        ingest(app, source)
        app.indexer.rebuild()


def advice(app: App) -> object:
    return status(app.engine, app.files, app.settings).as_dict()["model"]["advice"]


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("configured", [EMBEDDED, "auto"])
def test_a_catalogue_of_version_1_is_searched_and_loaded_with_version_1(
    open_app: Callable[..., App], source: Path, configured: str
) -> None:
    app = open_app(model=configured)
    assert "recorded before" in app.initialise()
    assert app.encoders.active().revision == "1-848d92bb4f69"
    match = app.search.search(Query(picture=photo(7, side=8), k=1)).matches[0]
    assert match.product.sku == "P0007" and match.similarity == pytest.approx(1.0, abs=1e-3)
    assert ingest(app, write_source(source.parent, ROWS + 1)).images_embedded == 1


@pytest.mark.usefixtures("filled")
def test_it_changes_to_the_newest_version_while_searches_go_on(
    open_app: Callable[..., App], source: Path
) -> None:
    app, page = open_app(), open_app()
    assert "lookalike model add embedded" in str(advice(app))
    stop = threading.Event()
    revisions: list[str] = []
    failures: list[BaseException] = []

    query = photo(5, side=8)

    def search_on() -> None:
        while not stop.wait(0.02):
            try:
                matches = page.search.search(Query(picture=query, k=1, objects=False)).matches
                assert [match.product.sku for match in matches] == ["P0005"]
                revisions.append(page.encoders.active().revision)
            except BaseException as exc:
                failures.append(exc)
                return

    searching = threading.Thread(target=search_on)
    searching.start()
    try:
        model = app.lifecycle.add(EMBEDDED)
        find = Originals([source.parent], app.limits, None).find
        report = embed(app.engine, model, app.encoders.for_model(model.id), find)
        app.indexer.rebuild(EMBEDDED)
        change = app.lifecycle.activate(EMBEDDED)
        after = len(revisions)
        while len(revisions) < after + 3 and not failures:
            stop.wait(0.01)
    finally:
        stop.set()
        searching.join()
    assert failures == []
    assert (report.embedded, report.left) == (ROWS, 0)
    assert change.former is not None and change.former.revision == "1-848d92bb4f69"
    assert revisions[0].startswith("1-") and revisions[-1].startswith(f"{NEWEST}-")
    assert advice(app) is None
    assert app.lifecycle.rollback().active.revision == "1-848d92bb4f69"


def test_a_new_catalogue_takes_the_newest_version(open_app: Callable[..., App]) -> None:
    app = open_app()
    app.initialise()
    assert app.encoders.active().revision.startswith(f"{NEWEST}-")
    assert advice(app) is None
