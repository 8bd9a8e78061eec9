"""Pictures from web addresses: downloaded from a real server, refused for unsafe or bad URLs."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, unquote

import pytest

from app.errors import BadImage
from app.images.download import (
    MAX_REDIRECTS,
    NO_VALIDATORS,
    Downloader,
    TryLater,
    Validators,
)
from app.images.public_network import BoundedStream, is_public
from support.colours import photo
from support.servers import wait_until

LIMIT = 10_000
PICTURE = photo(1)
CERTIFICATE = Path(__file__).with_name("pictures.test.pem")
"""The self-signed certificate of pictures.test with its key."""

LAST = "/picture?é".encode().decode("latin-1")
"""The target of the redirects, in the encoding of an HTTP header."""

HERE = "93.184.216.35"
"""A public address that these tests route to this machine."""


@pytest.fixture(autouse=True)
def connected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses connected to; all but loopback are refused, as if no server listened there."""
    connections: list[str] = []
    connect = socket.socket.connect

    def record_connect(self: socket.socket, address: Any) -> None:
        connections.append(address[0])
        if address[0] == HERE:
            address = ("127.0.0.1", address[1])
        if not ip_address(address[0]).is_loopback:
            raise ConnectionRefusedError(111, "Connection refused")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", record_connect)
    return connections


class Site(BaseHTTPRequestHandler):
    """Responds by path; the requests it received are in `requests`."""

    requests: ClassVar[list[tuple[str, dict[str, str]]]] = []

    def do_GET(self) -> None:
        self.requests.append((self.path, dict(self.headers)))
        name = self.path.strip("/").partition("/")[0].partition("?")[0]
        getattr(self, f"_{name}", self._missing)()

    def answer(self, data: bytes = b"", status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Disable logging."""

    def _picture(self) -> None:
        self.answer(PICTURE, Content_Type="image/png", Content_Length=str(len(PICTURE)))

    def _versioned(self) -> None:
        known = self.headers["If-None-Match"] == '"v1"'
        headers = {"ETag": '"v1"', "Last_Modified": "Sun, 29 Nov 2026 10:00:00 GMT"}
        self.answer(b"" if known else PICTURE, 304 if known else 200, **headers)

    def _unasked(self) -> None:
        self.answer(status=304)

    def _busy(self) -> None:
        self.answer(status=503, Retry_After=unquote(self.path.partition("?")[2]))

    def _endless(self) -> None:
        self.answer(b"x" * (LIMIT + 1), Content_Type="image/png")

    def _full(self) -> None:
        self.answer(b"x" * LIMIT, Content_Type="image/png")

    def _full_length(self) -> None:
        self.answer(b"x" * LIMIT, Content_Type="image/png", Content_Length=str(LIMIT))

    def _announced(self) -> None:
        self.answer(Content_Length=str(1 << 40))

    def _digits(self) -> None:
        self.answer(Content_Length="9" * 5000)

    def _cut(self) -> None:
        self.answer(PICTURE[:50], Content_Length=str(len(PICTURE)))

    def _chunks(self) -> None:
        half = len(PICTURE) // 2
        parts = (PICTURE[:half], PICTURE[half:], b"")
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
        self.protocol_version = "HTTP/1.1"
        self.answer(body, Transfer_Encoding="chunked")

    def _gzip(self) -> None:
        self.answer(gzip.compress(bytes(10_000_000)), Content_Encoding="gzip")

    def _page(self) -> None:
        self.answer(b"<p>Look!</p>", Content_Type="text/html; charset=utf-8")

    def _hidden(self) -> None:
        self.answer(b"\n <!DOCTYPE html><title>Look!</title>", Content_Type="image/jpeg")

    def _missing(self) -> None:
        self.answer(b"gone", status=404)

    def _moved(self) -> None:
        """/moved/3 is three redirects before the picture."""
        left = int(self.path.rpartition("/")[2])
        location = f"/moved/{left - 1}" if left > 1 else LAST
        self.answer(status=302, Location=location, Set_Cookie="a=b; Path=/")

    def _to(self) -> None:
        self.answer(status=307, Location=self.path.partition("?")[2])

    def _drip(self) -> None:
        self.answer(Content_Length="1000")
        self._slowly(b"x")

    def _slow(self) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\n")
        self._slowly(b"X-Wait: 1\r\n")

    def _slowly(self, part: bytes) -> None:
        try:
            for _ in range(3000):  # five minutes, unless the client gives up
                self.wfile.write(part)
                self.wfile.flush()
                time.sleep(0.1)
        except OSError:
            self.close_connection = True


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serves Site on a loopback port; yields the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving() as port:
        yield port


@pytest.fixture
def site(port: int) -> str:
    Site.requests.clear()
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def resolve_to(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Makes every name resolve to these addresses, one per lookup; returns the list of lookups."""
    lookup = socket.getaddrinfo

    def set_answers(*answers: str | list[str]) -> list[str]:
        lookups: list[str] = []
        left = iter(answers)

        def fake(host: str, *args: Any, **options: Any) -> list[Any]:
            lookups.append(host)
            answer = next(left)
            names = [answer] if isinstance(answer, str) else answer
            return [row for name in names for row in lookup(name, *args, **options)]

        monkeypatch.setattr(socket, "getaddrinfo", fake)
        return lookups

    return set_answers


NEAR = Downloader(max_bytes=LIMIT, ports=None, allow_private=True, timeout_s=5)
STRICT = Downloader(max_bytes=LIMIT, ports=None)


def refusal(url: str, pictures: Downloader = NEAR) -> str:
    """The error message with which a URL is refused."""
    with pytest.raises(BadImage) as caught:
        pictures.read(url)
    message = str(caught.value)
    assert message.endswith("."), message
    return message


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


def test_only_the_ports_of_web_servers_are_connected_to(site: str, connected: list[str]) -> None:
    strict = Downloader(max_bytes=LIMIT, allow_private=True)
    message = refusal(f"{site}/picture", strict)
    assert "from port 80, 443 only" in message and "LOOKALIKE_LINK_PORTS" in message
    assert connected == []


def test_a_redirect_to_another_port_is_refused(port: int, site: str, connected: list[str]) -> None:
    pictures = Downloader(max_bytes=LIMIT, ports=(port,), allow_private=True)
    assert pictures.read(f"{site}/picture") == PICTURE
    connected.clear()
    message = refusal(f"{site}/to?http://127.0.0.1:22/", pictures)
    assert f"from port {port} only" in message and connected == ["127.0.0.1"]


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


def test_redirects_are_followed_up_to_a_limit(site: str) -> None:
    assert NEAR.read(f"{site}/moved/{MAX_REDIRECTS}") == PICTURE
    assert [path for path, _ in Site.requests][-2:] == ["/moved/1", "/picture?%C3%A9"]
    assert "more than 5 times" in refusal(f"{site}/moved/{MAX_REDIRECTS + 1}")


@pytest.mark.parametrize(
    ("target", "reason"),
    [("file:///etc/passwd", "http:// or https://"), ("http://a:b@x.test/", "password"),
     ("http://[::1", "redirects to something"), ("http://x.test:0/", "no host")],
)  # fmt: skip
def test_the_target_of_a_redirect_is_validated_like_any_url(
    site: str, target: str, reason: str
) -> None:
    assert reason in refusal(f"{site}/to?{target}")


def test_a_request_carries_no_cookie_and_no_credentials(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login ada password secret")
    monkeypatch.setenv("NETRC", str(netrc))
    NEAR.read(f"{site}/moved/1")
    headers = {"Host", "User-Agent", "Accept", "Accept-Encoding", "Connection"}
    assert [set(sent) for _, sent in Site.requests] == [headers] * 2


def test_a_redirect_into_a_private_network_is_refused(
    port: int, resolve_to: Callable[..., list[str]], connected: list[str]
) -> None:
    resolve_to(HERE, "169.254.169.254")
    assert "private network" in refusal(f"http://shop.test:{port}/to?http://meta.test/", STRICT)
    assert connected == [HERE]


def test_a_picture_at_a_public_address_is_read_under_the_strict_rules(
    port: int, resolve_to: Callable[..., list[str]]
) -> None:
    resolve_to(HERE)
    assert STRICT.read(f"http://shop.test:{port}/picture") == PICTURE


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "localhost.", "[::1]", "10.1.2.3", "172.16.0.1", "192.168.1.1",
     "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "2130706433",
     "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "127.1", "[::ffff:127.0.0.1]", "[::]",
     "[2002:7f00:1::]", "[64:ff9b::a00:1]", "[fe80::1]", "[fc00::1]", "[ff02::1]",
     "\uff11\uff12\uff17.0.0.1"],
)  # fmt: skip
def test_a_host_in_a_private_network_is_never_connected_to(
    port: int, host: str, connected: list[str]
) -> None:
    message = refusal(f"http://{host}:{port}/picture", STRICT)
    assert "private network" in message and "LOOKALIKE_PRIVATE_ADDRESSES=true" in message
    assert connected == []


@pytest.mark.parametrize(
    "ip", ["93.184.216.34", "2606:4700::1111", "::ffff:93.184.216.34", "64:ff9b::5db8:d822",
           "2002:5db8:d822::1"],
)  # fmt: skip
def test_public_addresses_are_public(ip: str) -> None:
    assert is_public(ip_address(ip))


@pytest.mark.parametrize(
    "ip", ["240.0.0.1", "192.0.2.1", "198.18.0.1", "::127.0.0.1", "fec0::1", "2001:db8::1",
           "100::1", "2001::1", "64:ff9b:1::1", "::ffff:100.64.0.1"],
)  # fmt: skip
def test_reserved_addresses_are_not_public(ip: str) -> None:
    assert not is_public(ip_address(ip))


def test_one_private_address_among_public_ones_is_refused(
    resolve_to: Callable[..., list[str]], connected: list[str]
) -> None:
    resolve_to(["93.184.216.34", "10.0.0.1"])
    assert "private network" in refusal("http://both.test/", STRICT)
    assert connected == []


def test_a_name_is_resolved_once_and_the_validated_address_is_connected_to(
    resolve_to: Callable[..., list[str]], connected: list[str]
) -> None:
    lookups = resolve_to("93.184.216.34", "127.0.0.1")
    assert "Connection refused" in refusal("http://rebinding.test/", STRICT)
    assert (lookups, connected) == (["rebinding.test"], ["93.184.216.34"])


def test_the_next_address_is_tried_with_the_original_host_name(
    port: int, resolve_to: Callable[..., list[str]], connected: list[str]
) -> None:
    Site.requests.clear()
    resolve_to(["93.184.216.34", "127.0.0.1"])
    assert NEAR.read(f"http://Bücher.test:{port}/picture") == PICTURE
    assert connected == ["93.184.216.34", "127.0.0.1"]
    assert Site.requests[0][1]["Host"] == f"xn--bcher-kva.test:{port}"


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


def test_an_unknown_host_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_args: Any, **_options: Any) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "nowhere.test does not exist" in refusal("http://nowhere.test/a.jpg", STRICT)


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


@pytest.mark.parametrize(
    ("url", "reason"),
    [("", "empty"), ("   ", "empty"), ("example.com/a.jpg", "http:// or https://"),
     ("ftp://example.com/a.jpg", "http:// or https://"), ("data:image/png;base64,AA", "http://"),
     ("file:///etc/passwd", "http://"), ("javascript:alert(1)", "http://"),
     ("http://", "no host"), ("http:///a.jpg", "no host"), ("http://:80/a.jpg", "no host"),
     ("http://[::1", "no valid web address"), ("http://a.test:99999/", "no valid web address"),
     ("http://a.test:0/", "no host"), ("http://a.test:x/", "no valid web address"),
     ("http://ada:secret@a.test/", "password"), ("http://ada@a.test/", "password"),
     ("http://@a.test/", "password"), ("http://a.test/two words.jpg", "no spaces"),
     ("http://a.test/\r\nHost: b.test", "control characters"), ("http://a.test\\@b.test/", "back"),
     ("http://a.test/\0", "control characters"), ("http://a..test/", "is not valid"),
     (f"http://{'a' * 64}.test/", "is not valid"), ("http://a%00b.test/", "is not valid"),
     ("http://[fe80::1%25eth0]/", "is not valid"), ("http://\u2100.test/", "no valid web address"),
     ("http://\ud800.test/", "is not valid"), ("http://a.test/" + "a" * 10_000, "10,014")],
)  # fmt: skip
def test_an_invalid_url_is_an_error_without_any_connection(
    url: str, reason: str, connected: list[str]
) -> None:
    assert reason in refusal(url)
    assert connected == []


def test_a_path_that_cannot_be_encoded_is_an_error(site: str) -> None:
    assert "no valid web address" in refusal(f"{site}/\ud800")


@pytest.mark.parametrize("url", ["http://a.test:x/secret-token", "http://[secret-token"])
def test_an_error_message_does_not_repeat_the_url(url: str) -> None:
    assert "secret-token" not in refusal(url)


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
