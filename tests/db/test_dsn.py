"""The database URL: libpq receives every option unchanged, and a wrong one is not repeated."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Engine, event

from app.config import Settings
from app.db import dsn
from app.db.engine import make_engine, make_fast_engine
from app.errors import DatabaseUnavailable
from app.operations.change_listener import ChangeListener
from support.passwords import ask
from support.servers import TcpServer, free_port

pytestmark = pytest.mark.xdist_group("passwords")  # their server is started once


class ConnectIntercepted(Exception):
    """Raised instead of opening a connection."""


def connect_arguments(engine: Engine) -> dict[str, Any]:
    """The arguments that psycopg would get if the connection was opened."""
    captured: dict[str, Any] = {}

    def intercept(dialect: object, record: object, args: list[Any], named: dict[str, Any]) -> None:
        captured.update(named)
        assert not any(args)
        raise ConnectIntercepted

    event.listen(engine, "do_connect", intercept)
    with pytest.raises(ConnectIntercepted):
        engine.connect()
    return captured


URLS = [
    "postgresql://",
    "postgresql:///shop",
    "postgresql://host/shop?sslmode=verify-full&sslrootcert=/etc/a%20b.pem&sslcert=c&sslkey=k",
    "postgresql://u:p%20w@host:5433/shop?options=-c%20search_path%3Da%2Cb%20-c%20x.y%3D1+2",
    "postgresql://one:5432,two:5433,[::1]/shop?target_session_attrs=prefer-standby",
    "postgresql://one,two,three/shop?load_balance_hosts=random&port=5433",
    "postgresql:///shop?host=/var/run/a%20folder&port=5433",
    "postgresql:///shop?host=/one,/two&port=1,2",
    "postgresql://%2Ftmp%2Fsockets/shop",
    "postgresql://[2001:db8::1]:5433/shop",
    "postgresql://u@host/shop?password=a+b%2Bc&application_name=mine&connect_timeout=3",
    "postgresql://host/shop?keepalives=1&keepalives_idle=7&gssencmode=disable&channel_binding=require",
    "postgresql://?service=mine",
    "postgresql://host/d%40b?passfile=/somewhere&require_auth=scram-sha-256",
    "postgresql://u%40home:p%40%2F%3A%25@host/shop",
]  # fmt: skip


@pytest.mark.parametrize("how", [make_engine, make_fast_engine])
@pytest.mark.parametrize("url", URLS)
def test_every_option_of_a_url_reaches_libpq_unchanged(
    engines: Callable[..., Engine], url: str, how: Callable[[Settings], Engine]
) -> None:
    written = conninfo_to_dict(url)
    parameters = connect_arguments(engines(url, how))
    assert written.items() - {("options", written.get("options"))} <= parameters.items()
    assert parameters["options"].endswith(str(written.get("options", "")))
    added = {"options", "connect_timeout", "fallback_application_name", "autocommit", "context"}
    assert parameters.keys() - written.keys() <= added


@pytest.mark.parametrize("how", [make_engine, make_fast_engine])
def test_options_of_the_url_override_the_defaults_of_lookalike(
    engines: Callable[..., Engine], tcp: TcpServer, how: Callable[[Settings], Engine]
) -> None:
    options = quote("-c statement_timeout=1234 -c random_page_cost=7 -c work_mem=9MB")
    more = f"?options={options}&application_name=mine&connect_timeout=3&sslmode=disable"
    engine = engines(tcp.url() + more, how)
    values = {name: ask(engine, f"SHOW {name}") for name in (
        "statement_timeout", "random_page_cost", "work_mem", "application_name"
    )}  # fmt: skip
    assert values == {
        "statement_timeout": "1234ms", "random_page_cost": "7", "work_mem": "9MB",
        "application_name": "mine",
    }  # fmt: skip
    with engine.connect() as connection:
        parameters = connection.connection.driver_connection.info.get_parameters()  # type: ignore[union-attr]
    assert (parameters["sslmode"], parameters["connect_timeout"]) == ("disable", "3")


def test_options_of_the_environment_override_the_defaults_too(
    engines: Callable[..., Engine], tcp: TcpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGAPPNAME", "from outside")
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=9MB")
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "4")
    engine = engines(tcp.url())
    assert ask(engine, "SHOW application_name") == "from outside"
    assert ask(engine, "SHOW work_mem") == "9MB"
    assert "connect_timeout" not in connect_arguments(engines(tcp.url()))


def test_a_search_has_an_application_name_and_a_timeout_by_default(
    engines: Callable[..., Engine], tcp: TcpServer
) -> None:
    engine = engines(tcp.url(), statement_timeout_s=2.5)
    assert ask(engine, "SHOW application_name") == "lookalike"
    assert ask(engine, "SHOW statement_timeout") == "2500ms"


def test_of_several_hosts_the_first_reachable_one_is_used(
    engines: Callable[..., Engine], tcp: TcpServer
) -> None:
    both = f"127.0.0.1:{free_port()},127.0.0.1:{tcp.port}"
    url = tcp.url().replace(f"127.0.0.1:{tcp.port}", both) + "?target_session_attrs=read-write"
    assert ask(engines(url), "SELECT inet_server_port()") == tcp.port


def test_a_worker_listens_on_the_database_of_the_url(tcp: TcpServer) -> None:
    engine = make_engine(Settings(database_url=tcp.url() + "?keepalives_idle=99"))
    listener = ChangeListener(engine, threading.Event())
    assert listener.wait(0.1)
    assert listener._connection is not None
    parameters = listener._connection.info.get_parameters()
    name = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lookalike worker'"
    assert (parameters["keepalives_idle"], ask(engine, name)) == ("99", 1)
    listener.close()
    engine.dispose()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hun@ter2@localhost/shop",
        "postgresql://me:hun/ter2@localhost/shop",
        "postgresql://me:12/ter2@localhost/shop",
        "postgresql://me:%ffter2@localhost/shop",
        "postgresql://me:%zzter2@localhost/shop",
        "postgresql://me:ter2%00@localhost/shop",
        "postgresql://me:ter2\0@localhost/shop",
        "postgresql://me:ter2",
        "postgresql://me@localhost/shop?password=x&ter2",
        "postgresql://me:x@localhost:ter2/shop",
        "mysql://me:ter2@localhost/shop",
        "host=localhost password=ter2",
    ],
)
def test_an_invalid_url_is_refused_and_no_part_of_it_is_in_the_traceback(
    url: str,
) -> None:
    with pytest.raises(DatabaseUnavailable, match="LOOKALIKE_DATABASE_URL") as refused:
        dsn.parse(url)
    assert "ter2" not in "".join(traceback.format_exception(refused.value)).replace(url, "")
