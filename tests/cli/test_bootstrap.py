"""The composition root: the first `init` chooses the model, afterwards the database does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from app.bootstrap import App
from app.config import Settings
from app.db.engine import make_engine
from app.encoders.base import EncoderChoice
from app.errors import ModelMismatch, NoModel
from app.types import Query
from ingest.load import load
from support.colours import ColourEncoder, choose_colours, photo
from support.forks import Fork, fork
from support.paths import REPO

TESTS = REPO / "tests"
BOTH = r"(?s)colours.*others"


@pytest.fixture
def app_of(tmp_path: Path) -> Iterator[Callable[..., App]]:
    """Creates the services of a database and closes them at the end."""
    made: list[App] = []

    def make(
        url: str, *, choose: Callable[..., EncoderChoice] = choose_colours, **settings: Any
    ) -> App:
        made.append(App(Settings(database_url=url, home=tmp_path, **settings), choose=choose))
        return made[-1]

    yield make
    for app in made:
        app.close()


def choose_retrained(model: str, **_: Any) -> EncoderChoice:
    """The encoder 'colours' with changed weights."""
    encoder = ColourEncoder("colours")
    encoder.fingerprint = "0" * 64
    return EncoderChoice(encoder, f"{model} was retrained.")


def refuse_to_load(model: str, **_: Any) -> EncoderChoice:
    raise AssertionError(f"the encoder {model} was loaded")


def initialise(url: str, home: Path, model: str) -> Fork:
    """Start another process that runs `init` on this database; it tells its error."""

    def run(tell: Callable[[str], None]) -> None:
        settings = Settings(database_url=url, home=home, model=model)
        with App(settings, choose=choose_colours) as app:
            try:
                app.initialise()
            except Exception as exc:
                tell(f"{type(exc).__name__}: {exc}")
                raise

    return fork(run)


def models(url: str) -> list[tuple[str, bool]]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT name, active FROM model ORDER BY id").fetchall()


def test_the_first_init_records_the_model(app_of: Callable[..., App], empty_url: str) -> None:
    app_of(empty_url).initialise()
    assert models(empty_url) == [("colours", True)]


def test_the_first_init_returns_which_model_was_chosen(
    app_of: Callable[..., App], empty_url: str
) -> None:
    assert app_of(empty_url).initialise() == "The encoder colours was taken."


def test_a_second_init_changes_nothing(app_of: Callable[..., App], database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        before = connection.execute("SELECT model::text, model.xmin::text FROM model").fetchall()
        app_of(database_url).initialise()
        assert connection.execute("SELECT model::text, model.xmin::text FROM model").fetchall() == (
            before
        )


def test_a_second_init_names_the_model_that_stays(
    app_of: Callable[..., App], database_url: str
) -> None:
    assert "colours, as recorded before" in app_of(database_url).initialise()


def test_a_second_init_loads_no_model(app_of: Callable[..., App], database_url: str) -> None:
    app_of(database_url, choose=refuse_to_load).initialise()


def test_init_with_the_recorded_model_by_name_is_no_error(
    app_of: Callable[..., App], database_url: str
) -> None:
    assert "colours" in app_of(database_url, model="colours").initialise()


def test_init_with_another_model_is_an_error_that_names_both(
    app_of: Callable[..., App], database_url: str
) -> None:
    with pytest.raises(ModelMismatch, match=BOTH):
        app_of(database_url, model="others").initialise()


def test_init_with_another_model_records_nothing(
    app_of: Callable[..., App], database_url: str
) -> None:
    with pytest.raises(ModelMismatch):
        app_of(database_url, model="others").initialise()
    assert models(database_url) == [("colours", True)]


def test_a_search_with_another_model_set_is_an_error_that_names_both(
    app_of: Callable[..., App], database_url: str
) -> None:
    with pytest.raises(ModelMismatch, match=BOTH):
        app_of(database_url, model="others").search.search(Query(picture=photo(1)))


@pytest.mark.parametrize("asked", ["auto", "auto-int8"])
def test_auto_follows_the_recorded_model(
    app_of: Callable[..., App], empty_url: str, asked: str
) -> None:
    app_of(empty_url, model="others").initialise()
    app = app_of(empty_url, model=asked)
    assert "others" in app.initialise() and app.encoder().name == "others"


def test_weights_that_changed_under_the_same_name_are_an_error(
    app_of: Callable[..., App], database_url: str
) -> None:
    with pytest.raises(ModelMismatch, match="fingerprint 000000000000"):
        app_of(database_url, choose=choose_retrained).encoder()


def test_without_init_a_search_advises_to_run_it(
    app_of: Callable[..., App], database_url: str
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE model SET active = false")
    with pytest.raises(NoModel, match="lookalike init"):
        app_of(database_url).encoder()


def test_the_encoder_is_loaded_once(app_of: Callable[..., App], database_url: str) -> None:
    loaded: list[str] = []

    def choose(model: str, **more: Any) -> EncoderChoice:
        loaded.append(model)
        return choose_colours(model, **more)

    app = app_of(database_url, choose=choose)
    assert app.encoder() is app.encoder()
    assert loaded == ["colours"]


def test_processes_that_initialise_at_once_record_one_model(empty_url: str, tmp_path: Path) -> None:
    started = [initialise(empty_url, tmp_path, "auto") for _ in range(2)]
    said = [process.output.read() for process in started]
    assert ([process.wait() for process in started], models(empty_url)) == (
        [0, 0],
        [("colours", True)],
    ), said


def test_of_two_models_initialised_at_once_one_is_recorded_and_one_refused(
    empty_url: str, tmp_path: Path
) -> None:
    started = [initialise(empty_url, tmp_path, model) for model in ("colours", "others")]
    said = "".join(process.output.read() for process in started)
    assert sorted(process.wait() for process in started) == [0, 1], said
    assert "ModelMismatch: This database was filled with the model" in said
    assert [active for _, active in models(empty_url)].count(True) == 1


def test_a_refused_model_leaves_no_row(app_of: Callable[..., App], empty_url: str) -> None:
    def choose_too_late(model: str, **_: Any) -> EncoderChoice:
        app_of(empty_url, model="colours").initialise()
        return choose_colours(model)

    with pytest.raises(ModelMismatch, match=BOTH):
        app_of(empty_url, model="others", choose=choose_too_late).initialise()
    assert models(empty_url) == [("colours", True)]


def test_threads_that_ask_at_once_get_the_same_services(
    app_of: Callable[..., App], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Engine] = []

    def make_slowly(settings: Settings) -> Engine:
        time.sleep(0.1)
        made.append(make_engine(settings))
        return made[-1]

    monkeypatch.setattr("app.bootstrap.make_engine", make_slowly)
    app = app_of(database_url)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(getattr, app, name) for name in ("search", "catalog") * 2]
    first, second, third, fourth = [service.result() for service in asked]
    assert first is third and second is fourth and len(made) == 1


def test_a_search_by_sku_loads_no_model(app_of: Callable[..., App], database_url: str) -> None:
    app = app_of(database_url)
    pictures = app.settings.home / "pictures"
    pictures.mkdir()
    for seed in (1, 2):
        (pictures / f"product-{seed}.png").write_bytes(photo(seed))
    load(app.engine, app.catalog, app.encoders, app.limits, pictures)
    code = (
        "import sys\n"
        "from app.cli import cli\n"
        "cli.main(['search', '--sku', 'product-1', '--json'], standalone_mode=False)\n"
        "print(sorted({'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)))"
    )
    names = {"LOOKALIKE_DATABASE_URL": database_url, "LOOKALIKE_HOME": str(app.settings.home)}
    said = subprocess.check_output(
        [sys.executable, "-c", code], env=os.environ | names, text=True, stderr=subprocess.DEVNULL
    )
    assert '"product-2"' in said
    assert said.splitlines()[-1] == "[]"
