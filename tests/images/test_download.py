"""Pictures from web addresses: what is read from a server, and what of its responses is refused."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from io import BytesIO
from urllib.parse import quote

import pytest

from app.errors import BadImage
from app.images.download import Downloader, TryLater, Validators
from support.download_site import LIMIT, NEAR, PICTURE, Site, refusal

pytestmark = pytest.mark.usefixtures("connected")


@pytest.mark.parametrize("path", ["/picture", "/picture?size=2&name=é", "/chunks", "/moved/2"])
def test_the_bytes_of_a_picture_are_read(site: str, path: str) -> None:
    assert NEAR.read(site + path) == PICTURE


def test_spaces_around_a_url_are_ignored(site: str) -> None:
    assert NEAR.read(f"  {site}/picture \n") == PICTURE


def test_a_file_of_exactly_the_limit_is_read(site: str) -> None:
    assert len(NEAR.read(f"{site}/full")) == LIMIT


@pytest.mark.parametrize("path", ["/endless", "/announced"])
def test_a_file_over_the_limit_is_refused_with_or_without_content_length(
    site: str, path: str
) -> None:
    assert "more than the 10,000 bytes" in refusal(site + path)


def test_compressed_responses_are_neither_requested_nor_decompressed(site: str) -> None:
    assert "compressed" in refusal(f"{site}/gzip")
    assert Site.requests[0][1]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("path", ["/page", "/hidden"])
def test_a_web_page_is_recognised_and_refused(site: str, path: str) -> None:
    message = refusal(site + path)
    assert "a web page, not a picture; copy the address of the picture itself" in message


SAYS = "You-have-won.test"


def test_no_message_repeats_what_a_server_sent() -> None:
    """Shown on the page, it would be taken for a message of ours."""
    heads = [
        f"HTTP/1.1 404 {SAYS}\r\n\r\n", f"HTTP/1.1 200 OK\r\nContent-Encoding: {SAYS}\r\n\r\n",
        f"{SAYS}\r\n\r\n", f"HTTP/1.1 200 OK\r\n{SAYS}\r\n\r\n",
        f"HTTP/1.1 200 OK\r\nContent-Length: {SAYS}\r\n\r\n",
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{SAYS}\r\n",
        f"HTTP/1.1 302 Found\r\nLocation: http://{SAYS}:1/\r\n\r\n",
        f"HTTP/1.1 302 Found\r\nLocation: {SAYS}://a/\r\n\r\n",
        f"HTTP/1.1 302 Found\r\nLocation: http://{SAYS}/\r\n\r\n",
        f"HTTP/1.1 302 Found\r\nLocation: http://[{SAYS}\r\n\r\n",
    ]  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            for head in heads:
                with listening.accept()[0] as wire:
                    wire.recv(1000)
                    wire.sendall(head.encode())

        thread = threading.Thread(target=answer)
        thread.start()
        for _ in heads:
            message = refusal(f"http://127.0.0.1:{listening.getsockname()[1]}/")
            assert SAYS.lower() not in message.lower()
        thread.join()


def test_an_error_status_is_in_the_reason(site: str) -> None:
    assert "status 404" in refusal(f"{site}/nothing")


def test_a_file_that_has_not_changed_is_not_transferred(site: str) -> None:
    known = Validators('"v1"', "Sun, 29 Nov 2026 10:00:00 GMT")
    body = BytesIO()
    assert NEAR.fetch(f"{site}/versioned", body) == known and body.getvalue() == PICTURE
    body = BytesIO()
    assert NEAR.fetch(f"{site}/versioned", body, known) is None and body.getvalue() == b""
    sent = Site.requests[-1][1]
    assert (sent["If-None-Match"], sent["If-Modified-Since"]) == (known.etag, known.last_modified)


def test_a_304_that_was_not_asked_for_is_an_error(site: str) -> None:
    assert "304" in refusal(f"{site}/unasked")


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("120", 120, 120), ("", None, None), ("soon", None, None), ("-5", None, None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0, 0), ("9" * 500, None, None),
        ("Sat, 01 Jan 2150 00:00:00 GMT", 10**9, 10**10),
    ],
)  # fmt: skip
def test_how_long_a_busy_server_asks_to_wait_is_known(
    site: str, value: str, least: float | None, most: float | None
) -> None:
    with pytest.raises(TryLater, match="503") as caught:
        NEAR.read(f"{site}/busy?{quote(value)}")
    after = caught.value.after_s
    assert after is None if least is None else least <= (after or 0) <= (most or 0)


def test_a_content_length_of_thousands_of_digits_is_refused(site: str) -> None:
    assert "cannot be read from" in refusal(f"{site}/digits")


def test_a_truncated_response_is_refused(site: str) -> None:
    assert "broke off" in refusal(f"{site}/cut")


@pytest.mark.parametrize("path", ["/drip", "/slow"])
def test_a_slow_response_is_ended_at_the_timeout(site: str, path: str) -> None:
    impatient = Downloader(max_bytes=LIMIT, ports=None, allow_private=True, timeout_s=0.5)
    began = time.monotonic()
    assert "took longer than 0.5 seconds" in refusal(site + path, impatient)
    assert time.monotonic() - began < 60


def test_a_tls_handshake_without_response_is_ended_at_the_timeout() -> None:
    impatient = Downloader(max_bytes=LIMIT, ports=None, allow_private=True, timeout_s=0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        assert "took longer than 0.5 seconds" in refusal(url, impatient)


def test_a_name_lookup_without_end_is_ended_at_the_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: ended.wait(300) and [])
    message = refusal("http://slow.test/", Downloader(max_bytes=LIMIT, ports=None, timeout_s=0.2))
    ended.set()
    assert "took longer" in message


@pytest.mark.parametrize("size", ["-1", "-5", "zz"])
def test_a_chunk_with_an_invalid_size_is_refused_and_not_read_endlessly(size: str) -> None:
    """http.client reads to the end of the stream for a chunk size of -1."""
    taken = 0

    def flood(listener: socket.socket) -> None:
        nonlocal taken
        wire, _ = listener.accept()
        with wire, suppress(OSError):
            wire.recv(65536)
            head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\n"
            wire.sendall(head.encode())
            for _ in range(200):
                wire.sendall(bytes(1 << 20))
                taken += 1 << 20

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=flood, args=(listener,))
        thread.start()
        port = listener.getsockname()[1]
        with pytest.raises(BadImage, match="cannot be read from"):
            Downloader(max_bytes=1000, ports=None, allow_private=True).read(
                f"http://127.0.0.1:{port}/x"
            )
        thread.join(300)
    assert taken < 50 << 20
