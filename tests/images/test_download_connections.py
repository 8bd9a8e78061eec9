"""Connections of downloads: proxies, TLS, other protocols, and connections that stay open."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest

from app.errors import BadImage
from app.images.download import NO_VALIDATORS, Downloader, TryLater, Validators
from app.images.public_network import BoundedStream
from support.download_site import LIMIT, NEAR, PICTURE, Site, refusal, serving
from support.servers import wait_until

pytestmark = pytest.mark.usefixtures("connected")

CERTIFICATE = Path(__file__).with_name("pictures.test.pem")
"""The self-signed certificate of pictures.test with its key."""


def test_proxies_of_the_environment_are_ignored(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert NEAR.read(f"{site}/picture") == PICTURE


@pytest.fixture
def secure(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Downloader, int]]:
    """A downloader that trusts the certificate of pictures.test, and the port of its server."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(CERTIFICATE)
    with serving(tls) as port:
        yield Downloader(max_bytes=LIMIT, ports=None, allow_private=True), port


def test_a_certificate_is_verified_for_the_requested_host(
    secure: tuple[Downloader, int], resolve_to: Callable[..., list[str]]
) -> None:
    pictures, port = secure
    resolve_to("127.0.0.1", "127.0.0.1")
    assert pictures.read(f"https://pictures.test:{port}/picture") == PICTURE
    assert "no valid TLS certificate" in refusal(f"https://other.test:{port}/picture", pictures)


def test_an_untrusted_certificate_is_refused(
    secure: tuple[Downloader, int], resolve_to: Callable[..., list[str]]
) -> None:
    resolve_to("127.0.0.1")
    assert "no valid TLS certificate" in refusal(f"https://pictures.test:{secure[1]}/picture", NEAR)


def test_a_refused_connection_is_reported() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        message = refusal(f"http://127.0.0.1:{free.getsockname()[1]}/")
    assert "Connection refused" in message


@pytest.mark.parametrize(
    ("greeting", "reason"),
    [(b"220 mail.test ESMTP\r\n" * 3, "does not answer as a web server"),
     (b"220 mail.test ESMTP\r\n\r\n", "does not answer as a web server")],
)  # fmt: skip
def test_a_server_that_speaks_another_protocol_is_refused(greeting: bytes, reason: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            with listening.accept()[0] as wire:
                wire.recv(1000)
                wire.sendall(greeting)

        thread = threading.Thread(target=greet)
        thread.start()
        message = refusal(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        thread.join()
    assert reason in message


# Connections that stay open


@pytest.fixture
def kept_site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A site that keeps connections open, as HTTP/1.1 does."""
    monkeypatch.setattr(Site, "protocol_version", "HTTP/1.1")
    monkeypatch.setattr(Site, "timeout", 30)
    with serving() as port:
        yield f"http://127.0.0.1:{port}"
        # Its threads end when the connections are closed.
        wait_until(lambda: "process_request_thread" not in str(threading.enumerate()), "they stay")


@pytest.fixture
def keeping(kept_site: str) -> Iterator[Downloader]:
    web = Downloader(max_bytes=LIMIT, ports=None, allow_private=True, keep_alive=True)
    yield web
    web.close()


def fetched(web: Downloader, url: str, known: Validators = NO_VALIDATORS) -> bytes | None:
    body = BytesIO()
    return body.getvalue() if web.fetch(url, body, known) is not None else None


def test_downloads_from_one_server_share_a_connection(
    kept_site: str, keeping: Downloader, connected: list[str]
) -> None:
    for _ in range(3):
        assert fetched(keeping, f"{kept_site}/picture") == PICTURE
        assert fetched(keeping, f"{kept_site}/chunks") == PICTURE
    assert fetched(keeping, f"{kept_site}/versioned", Validators('"v1"')) is None
    assert fetched(keeping, f"{kept_site}/picture") == PICTURE
    assert len(connected) == 1
    assert "Connection" not in Site.requests[-1][1]


def test_a_connection_that_the_server_has_closed_is_replaced(
    kept_site: str, keeping: Downloader, connected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Site, "timeout", 0.05)  # seconds that the site waits for a request
    assert fetched(keeping, f"{kept_site}/picture") == PICTURE
    time.sleep(0.3)
    # As if it had closed the connection while the request was on its way.
    monkeypatch.setattr(BoundedStream, "get_extra_info", lambda self, info: None)
    assert fetched(keeping, f"{kept_site}/picture") == PICTURE
    assert len(connected) == 2


def test_each_download_over_a_kept_connection_has_limits_of_its_own(
    kept_site: str, keeping: Downloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.images.download.FRAMING_BYTES", 2 * LIMIT)
    for _ in range(10):  # more than one connection may receive in one download
        assert fetched(keeping, f"{kept_site}/full_length") == b"x" * LIMIT
    slow = Downloader(
        max_bytes=LIMIT, ports=None, allow_private=True, keep_alive=True, timeout_s=0.5
    )
    assert fetched(slow, f"{kept_site}/picture") == PICTURE
    time.sleep(0.6)  # the first download's time is over
    assert fetched(slow, f"{kept_site}/picture") == PICTURE
    with pytest.raises(TryLater, match=r"longer than 0\.5 seconds"):
        fetched(slow, f"{kept_site}/drip")
    slow.close()


def test_a_connection_is_not_used_again_after_a_part_of_a_response(
    kept_site: str, keeping: Downloader, connected: list[str]
) -> None:
    with pytest.raises(BadImage, match="more than"):
        fetched(keeping, f"{kept_site}/announced")
    assert fetched(keeping, f"{kept_site}/picture") == PICTURE
    assert len(connected) == 2


def test_without_keep_alive_a_server_is_told_to_close(kept_site: str) -> None:
    Downloader(max_bytes=LIMIT, ports=None, allow_private=True).read(f"{kept_site}/picture")
    assert Site.requests[-1][1]["Connection"] == "close"
