"""A password is read from each place where it may be written, and appears nowhere else."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from sqlalchemy import Engine

from app.bootstrap import App
from app.cli import main
from app.cli import serve_page as page_command
from app.config import Settings
from app.db import dsn
from app.db.engine import database_url
from app.errors import BadInput
from app.images.sandbox import PictureSandbox
from app.operations.health import status
from app.types import Query
from support.colours import choose_colours, photo
from support.passwords import CANARY, SECRET, ask
from support.servers import TcpServer, free_port

pytestmark = pytest.mark.xdist_group("passwords")  # their server is started once


def in_the_url(tcp: TcpServer, tmp_path: Path) -> tuple[str, dict[str, str]]:
    return tcp.url("postgres", SECRET, "canary"), {}


def in_the_query_options(tcp: TcpServer, tmp_path: Path) -> tuple[str, dict[str, str]]:
    where = f"postgresql://127.0.0.1:{tcp.port}/postgres"
    return f"{where}?user=canary&password={quote(SECRET, safe='')}", {}


def in_pgpassword(tcp: TcpServer, tmp_path: Path) -> tuple[str, dict[str, str]]:
    return f"postgresql://canary@127.0.0.1:{tcp.port}/postgres", {"PGPASSWORD": SECRET}


def in_a_password_file(tcp: TcpServer, tmp_path: Path) -> tuple[str, dict[str, str]]:
    escaped = SECRET.replace("\\", "\\\\").replace(":", "\\:")
    (tmp_path / "pgpass").write_text(f"*:*:*:canary:{escaped}\n", encoding="utf-8")
    (tmp_path / "pgpass").chmod(0o600)
    return in_pgpassword(tcp, tmp_path)[0], {"PGPASSFILE": str(tmp_path / "pgpass")}


def in_a_service_file(tcp: TcpServer, tmp_path: Path) -> tuple[str, dict[str, str]]:
    service = f"[mine]\nhost=127.0.0.1\nport={tcp.port}\nuser=canary\npassword={SECRET}\n"
    (tmp_path / "services").write_text(service + "dbname=postgres\n", encoding="utf-8")
    return "postgresql://?service=mine", {"PGSERVICEFILE": str(tmp_path / "services")}


def in_a_secret_file(tcp: TcpServer, tmp_path: Path) -> tuple[str, dict[str, str]]:
    (tmp_path / "secret").write_text(f"{SECRET}\n", encoding="utf-8")
    named = {"LOOKALIKE_DATABASE_PASSWORD_FILE": str(tmp_path / "secret")}
    return in_pgpassword(tcp, tmp_path)[0], named


PLACES = [
    in_the_url, in_the_query_options, in_pgpassword, in_a_password_file, in_a_service_file,
    in_a_secret_file,
]  # fmt: skip
Place = Callable[[TcpServer, Path], tuple[str, dict[str, str]]]


@pytest.fixture(params=PLACES, ids=lambda place: place.__name__)
def url_with_password(
    request: pytest.FixtureRequest, tcp: TcpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The URL, with the password in this place."""
    place: Place = request.param
    url, environment = place(tcp, tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return url


def test_a_password_with_special_characters_is_read_from_every_place(
    engines: Callable[..., Engine], url_with_password: str
) -> None:
    assert ask(engines(url_with_password), "SELECT current_user") == "canary"


def test_the_password_of_a_url_takes_precedence_over_a_secret_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("other")
    for url in ("postgresql://u:own@h/d", "postgresql://h/d?user=u&password=own"):
        settings = Settings(database_url=url, database_password_file=tmp_path / "secret")
        assert dsn.parse(database_url(settings))["password"] == "own"


@pytest.mark.parametrize(
    "content, message", [(None, "cannot be read: No such"), (b"", "is empty"), (b"\xff", "UTF-8")]
)
def test_an_unusable_secret_file_is_an_error_that_names_it(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    settings = Settings(database_url="postgresql://u@h/d", database_password_file=file)
    with pytest.raises(BadInput, match=message) as refused:
        database_url(settings)
    assert str(file) in str(refused.value)


def test_a_password_is_in_no_log_no_repr_and_no_traceback(
    url_with_password: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for logger in ("", "sqlalchemy", "psycopg"):
        caplog.set_level(logging.DEBUG, logger)
    tracebacks = []
    with App(Settings(home=tmp_path, database_url=url_with_password), choose=choose_colours) as app:
        tracebacks += [repr(app.settings), str(app.settings), repr(app), repr(app.engine)]
        tracebacks += [repr(app.fast_engine), repr(app.engine.url), str(app.engine.url)]
        tracebacks += [repr(app.engine.pool), app.engine.pool.status()]
        with app.engine.connect() as connection:
            tracebacks += [repr(connection.connection.driver_connection), repr(connection)]
        for fails in (
            lambda: app.search.search(Query(picture=photo(1))),
            lambda: ask(app.engine, "SELECT 1 / 0"),
            lambda: ask(app.engine, "SELECT pg_terminate_backend(pg_backend_pid())"),
        ):
            tracebacks.append(traceback_of(fails))
        tracebacks.append(repr(status(app.engine, app.files, app.settings)))
    assert len(caplog.text) > 100
    assert [each for each in (*tracebacks, caplog.text) if CANARY in each] == []


def traceback_of(fails: Callable[[], object]) -> str:
    """The whole traceback of the exception that `fails` raises, causes included."""
    try:
        fails()
    except Exception:
        return traceback.format_exc()
    raise AssertionError("no exception was raised")


@pytest.mark.parametrize("wrong", ["password", "port", "host", "database", "ssl"])
def test_a_password_is_not_in_the_traceback_of_a_failed_connection(
    tcp: TcpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    for logger in ("", "sqlalchemy", "psycopg"):
        caplog.set_level(logging.DEBUG, logger)
    url = {
        "password": tcp.url("postgres", SECRET + "2", "canary"),
        "port": tcp.url("postgres", SECRET, "canary").replace(str(tcp.port), str(free_port())),
        "host": tcp.url("postgres", SECRET, "canary").replace("127.0.0.1", "nowhere.invalid"),
        "database": tcp.url("nowhere", SECRET, "canary"),
        "ssl": tcp.url("postgres", SECRET, "canary") + "?sslmode=require",
    }[wrong]
    with App(Settings(home=tmp_path, database_url=url), choose=choose_colours) as app:
        slow_path = traceback_of(app.catalog.model)
        fast_path = traceback_of(lambda: app.fast_engine.connect())
    assert "DatabaseUnavailable" in slow_path
    assert CANARY not in slow_path + fast_path + caplog.text


Run = Callable[..., tuple[object, str, str]]


@pytest.fixture
def lookalike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Run:
    """Runs `lookalike` with a database; gives its exit code, its output and its errors."""

    def run(url: str, *words: str) -> tuple[object, str, str]:
        monkeypatch.setenv("LOOKALIKE_DATABASE_URL", url)
        monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path))
        monkeypatch.setattr(sys, "argv", ["lookalike", *words])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capfd.readouterr()

    return run


def test_a_url_is_printed_without_its_password_unless_requested(
    tcp: TcpServer, tmp_path: Path, lookalike: Run
) -> None:
    url, _ = in_the_url(tcp, tmp_path)
    _, printed, _ = lookalike(url, "db", "url")
    assert printed.strip() == f"postgresql://canary@127.0.0.1:{tcp.port}/postgres"
    _, whole, _ = lookalike(url, "db", "url", "--with-password")
    with psycopg.connect(whole.strip()) as connection:
        assert connection.info.user == "canary"


@pytest.mark.parametrize(
    ("url", "redacted"),
    [
        ("postgresql+psycopg://u:p@h/d", "postgresql://u@h/d"),
        ("postgres://u:p?w@h/d?sslmode=require", "postgresql://u@h/d?sslmode=require"),
        ("postgresql://h/d?password=p&user=u&sslpassword=s", "postgresql://h/d?user=u"),
        ("postgresql://h/d?password=p", "postgresql://h/d"),
        ("postgresql://a user:a word@h/d", "postgresql://a%20user@h/d"),
        ("postgresql://postgres@/l?host=%2Fa&port=1", "postgresql://postgres@/l?host=%2Fa&port=1"),
    ],
)
def test_redacting_a_url_removes_only_its_password(url: str, redacted: str) -> None:
    assert dsn.without_password(url) == redacted


@pytest.mark.parametrize("words", [("status",), ("status", "--json"), ("index", "status")])
@pytest.mark.parametrize("secret", [SECRET, SECRET + "2"], ids=["right", "wrong"])
def test_no_command_prints_the_password(
    tcp: TcpServer, lookalike: Run, words: tuple[str, ...], secret: str
) -> None:
    code, out, err = lookalike(tcp.url("postgres", secret, "canary"), *words)
    assert code == 1
    assert (out or err) and CANARY not in out + err


def test_no_child_process_has_the_password_in_its_command_line(
    tcp: TcpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LOOKALIKE_DATABASE_URL", in_the_url(tcp, tmp_path)[0])
    started: list[str] = []
    monkeypatch.setattr(os, "execv", lambda program, words: started.extend([program, *words]))
    page_command.serve("localhost", 8501)
    assert "app.cli.page_process" in started
    assert CANARY not in " ".join(started)


def test_the_sandbox_process_does_not_have_the_password(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_DATABASE_URL", f"postgresql://u:{CANARY}@h/d")
    monkeypatch.setenv("PGPASSWORD", CANARY)
    sandbox = PictureSandbox(app.limits)
    sandbox.decode(photo(1))
    children = [
        (Path(f"/proc/{pid}/cmdline").read_bytes(), Path(f"/proc/{pid}/environ").read_bytes())
        for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    ]
    sandbox.close()
    assert any(b"app.images.sandbox" in words for words, _ in children)
    for words, environment in children:
        if b"app.images.sandbox" in words:
            assert CANARY.encode() not in words + environment
