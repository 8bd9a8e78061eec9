"""Pictures by their web address: fetched from a real server, and refused where they must be."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar

import pytest

from app.errors import BadImage
from app.images.download import MAX_REDIRECTS, PictureDownloader
from app.images.public_network import is_public
from support.colours import photo

LIMIT = 10_000
PICTURE = photo(1)
CERTIFICATE = Path(__file__).with_name("pictures.test.pem")
"""Of pictures.test, with its key; signed by itself."""

LAST = "/picture?é".encode().decode("latin-1")
"""Where the redirects end, as a header carries it."""

HERE = "93.184.216.35"
"""A public address that is this machine, as far as these tests are concerned."""


@pytest.fixture(autouse=True)
def connected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses connected to; any but loopback is refused, as if nobody listened there."""
    made: list[str] = []
    connect = socket.socket.connect

    def watch(self: socket.socket, address: Any) -> None:
        made.append(address[0])
        if address[0] == HERE:
            address = ("127.0.0.1", address[1])
        if not ip_address(address[0]).is_loopback:
            raise ConnectionRefusedError(111, "Connection refused")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", watch)
    return made


class Site(BaseHTTPRequestHandler):
    """Answers by path; what it was asked is kept in `asked`."""

    asked: ClassVar[list[tuple[str, dict[str, str]]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, dict(self.headers)))
        name = self.path.strip("/").partition("/")[0].partition("?")[0]
        getattr(self, f"_{name}", self._missing)()

    def answer(self, data: bytes = b"", status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nothing is logged."""

    def _picture(self) -> None:
        self.answer(PICTURE, Content_Type="image/png", Content_Length=str(len(PICTURE)))

    def _endless(self) -> None:
        self.answer(b"x" * (LIMIT + 1), Content_Type="image/png")

    def _full(self) -> None:
        self.answer(b"x" * LIMIT, Content_Type="image/png")

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
        """/moved/3 is three redirects from the picture."""
        left = int(self.path.rpartition("/")[2])
        location = f"/moved/{left - 1}" if left > 1 else LAST
        self.answer(status=302, Location=location, Set_Cookie="a=b; Path=/")

    def _to(self) -> None:
        self.answer(status=307, Location=self.path.partition("?")[2])

    def _drip(self) -> None:
        self.answer(Content_Length="1000")
        self._drop_by_drop(b"x")

    def _slow(self) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\n")
        self._drop_by_drop(b"X-Wait: 1\r\n")

    def _drop_by_drop(self, drop: bytes) -> None:
        try:
            for _ in range(50):
                self.wfile.write(drop)
                self.wfile.flush()
                time.sleep(0.1)
        except OSError:
            self.close_connection = True


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Site on a port of loopback, which is given."""
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
    Site.asked.clear()
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def leads(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Makes every name lead to these addresses, one lookup after the other; gives the lookups."""
    lookup = socket.getaddrinfo

    def lead(*answers: str | list[str]) -> list[str]:
        asked: list[str] = []
        left = iter(answers)

        def fake(host: str, *args: Any, **options: Any) -> list[Any]:
            asked.append(host)
            found = next(left)
            names = [found] if isinstance(found, str) else found
            return [row for name in names for row in lookup(name, *args, **options)]

        monkeypatch.setattr(socket, "getaddrinfo", fake)
        return asked

    return lead


NEAR = PictureDownloader(max_bytes=LIMIT, allow_private=True, timeout_s=5)
STRICT = PictureDownloader(max_bytes=LIMIT)


def refusal(url: str, pictures: PictureDownloader = NEAR) -> str:
    """The sentence with which an address is refused."""
    with pytest.raises(BadImage) as caught:
        pictures.read(url)
    said = str(caught.value)
    assert said.endswith("."), said
    return said


@pytest.mark.parametrize("path", ["/picture", "/picture?size=2&name=é", "/chunks", "/moved/2"])
def test_the_bytes_of_a_picture_are_read(site: str, path: str) -> None:
    assert NEAR.read(site + path) == PICTURE


def test_spaces_around_an_address_do_not_count(site: str) -> None:
    assert NEAR.read(f"  {site}/picture \n") == PICTURE


def test_a_file_of_just_the_limit_is_read(site: str) -> None:
    assert len(NEAR.read(f"{site}/full")) == LIMIT


@pytest.mark.parametrize("path", ["/endless", "/announced"])
def test_a_file_over_the_limit_is_refused_said_or_unsaid(site: str, path: str) -> None:
    assert "more than the 10,000 bytes" in refusal(site + path)


def test_no_compressed_answer_is_asked_for_or_unfolded(site: str) -> None:
    assert "compressed" in refusal(f"{site}/gzip")
    assert Site.asked[0][1]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("path", ["/page", "/hidden"])
def test_a_web_page_is_told_from_a_picture(site: str, path: str) -> None:
    said = refusal(site + path)
    assert "is a web page, not a picture; copy the address of the picture itself" in said


def test_an_answer_that_is_no_picture_is_named(site: str) -> None:
    assert "404 Not Found" in refusal(f"{site}/nothing")


def test_an_announced_length_of_thousands_of_digits_is_refused(site: str) -> None:
    assert "cannot be read from" in refusal(f"{site}/digits")


def test_a_picture_that_breaks_off_is_refused(site: str) -> None:
    assert "broke off" in refusal(f"{site}/cut")


@pytest.mark.parametrize("path", ["/drip", "/slow"])
def test_a_server_that_sends_drop_by_drop_is_cut_off_in_time(site: str, path: str) -> None:
    hasty = PictureDownloader(max_bytes=LIMIT, allow_private=True, timeout_s=0.5)
    began = time.monotonic()
    assert "took longer than 0.5 seconds" in refusal(site + path, hasty)
    assert time.monotonic() - began < 60


def test_a_server_that_never_answers_a_tls_handshake_is_cut_off_in_time() -> None:
    hasty = PictureDownloader(max_bytes=LIMIT, allow_private=True, timeout_s=0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        assert "took longer than 0.5 seconds" in refusal(url, hasty)


def test_a_name_that_is_looked_up_for_ever_is_cut_off_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: ended.wait(300) and [])
    said = refusal("http://slow.test/", PictureDownloader(max_bytes=LIMIT, timeout_s=0.2))
    ended.set()
    assert "took longer" in said


def test_redirects_are_followed_to_a_limit(site: str) -> None:
    assert NEAR.read(f"{site}/moved/{MAX_REDIRECTS}") == PICTURE
    assert [path for path, _ in Site.asked][-2:] == ["/moved/1", "/picture?%C3%A9"]
    assert "more than 5 times" in refusal(f"{site}/moved/{MAX_REDIRECTS + 1}")


@pytest.mark.parametrize(
    ("target", "says"),
    [("file:///etc/passwd", "http:// or https://"), ("http://a:b@x.test/", "password"),
     ("http://[::1", "no web address"), ("http://x.test:0/", "no host")],
)  # fmt: skip
def test_a_redirect_obeys_the_rules_of_addresses(site: str, target: str, says: str) -> None:
    assert says in refusal(f"{site}/to?{target}")


def test_a_request_carries_no_cookie_and_no_credentials(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login ada password secret")
    monkeypatch.setenv("NETRC", str(netrc))
    NEAR.read(f"{site}/moved/1")
    headers = {"Host", "User-Agent", "Accept", "Accept-Encoding", "Connection"}
    assert [set(sent) for _, sent in Site.asked] == [headers] * 2


def test_a_redirect_into_a_private_network_is_refused(
    port: int, leads: Callable[..., list[str]], connected: list[str]
) -> None:
    leads(HERE, "169.254.169.254")
    assert "private network" in refusal(f"http://shop.test:{port}/to?http://meta.test/", STRICT)
    assert connected == [HERE]


def test_a_picture_in_public_is_read_under_the_strict_rules(
    port: int, leads: Callable[..., list[str]]
) -> None:
    leads(HERE)
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
    assert "private network" in refusal(f"http://{host}:{port}/picture", STRICT)
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
def test_addresses_nobody_owns_in_public_are_not_public(ip: str) -> None:
    assert not is_public(ip_address(ip))


def test_one_private_address_among_public_ones_is_enough_to_refuse(
    leads: Callable[..., list[str]], connected: list[str]
) -> None:
    leads(["93.184.216.34", "10.0.0.1"])
    assert "private network" in refusal("http://both.test/", STRICT)
    assert connected == []


def test_a_name_is_looked_up_once_and_the_address_that_was_judged_is_connected_to(
    leads: Callable[..., list[str]], connected: list[str]
) -> None:
    asked = leads("93.184.216.34", "127.0.0.1")
    assert "Connection refused" in refusal("http://rebinding.test/", STRICT)
    assert (asked, connected) == (["rebinding.test"], ["93.184.216.34"])


def test_a_host_is_asked_by_its_own_name_at_the_next_address_that_answers(
    port: int, leads: Callable[..., list[str]], connected: list[str]
) -> None:
    Site.asked.clear()
    leads(["93.184.216.34", "127.0.0.1"])
    assert NEAR.read(f"http://Bücher.test:{port}/picture") == PICTURE
    assert connected == ["93.184.216.34", "127.0.0.1"]
    assert Site.asked[0][1]["Host"] == f"xn--bcher-kva.test:{port}"


def test_the_proxies_of_the_environment_are_not_used(
    site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert NEAR.read(f"{site}/picture") == PICTURE


@pytest.fixture
def secure(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[PictureDownloader, int]]:
    """A reader that trusts the certificate of pictures.test, and the port of a server with it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(CERTIFICATE)
    with serving(tls) as port:
        yield PictureDownloader(max_bytes=LIMIT, allow_private=True), port


def test_a_certificate_is_checked_for_the_name_that_was_asked_for(
    secure: tuple[PictureDownloader, int], leads: Callable[..., list[str]]
) -> None:
    pictures, port = secure
    leads("127.0.0.1", "127.0.0.1")
    assert pictures.read(f"https://pictures.test:{port}/picture") == PICTURE
    assert "certificate of" in refusal(f"https://other.test:{port}/picture", pictures)


def test_a_certificate_nobody_vouches_for_is_refused(
    secure: tuple[PictureDownloader, int], leads: Callable[..., list[str]]
) -> None:
    leads("127.0.0.1")
    assert "certificate of" in refusal(f"https://pictures.test:{secure[1]}/picture", NEAR)


def test_a_host_nobody_knows_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_args: Any, **_options: Any) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "There is no host nowhere.test" in refusal("http://nowhere.test/a.jpg", STRICT)


def test_a_host_where_nobody_listens_is_said() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        said = refusal(f"http://127.0.0.1:{free.getsockname()[1]}/")
    assert "Connection refused" in said


@pytest.mark.parametrize(
    ("greeting", "reason"),
    [(b"220 mail.test ESMTP\r\n" * 3, "without sending a response"),
     (b"220 mail.test ESMTP\r\n\r\n", "illegal status line")],
)  # fmt: skip
def test_a_server_that_speaks_another_protocol_is_refused(greeting: bytes, reason: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            with listening.accept()[0] as wire:
                wire.recv(1000)
                wire.sendall(greeting)

        thread = threading.Thread(target=greet)
        thread.start()
        said = refusal(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        thread.join()
    assert reason in said


@pytest.mark.parametrize(
    ("url", "says"),
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
def test_an_odd_address_is_a_sentence_and_nobody_is_asked(
    url: str, says: str, connected: list[str]
) -> None:
    assert says in refusal(url)
    assert connected == []


def test_a_path_with_letters_nobody_can_encode_is_a_sentence(site: str) -> None:
    assert "no valid web address" in refusal(f"{site}/\ud800")


@pytest.mark.parametrize("url", ["http://a.test:x/secret-token", "http://[secret-token"])
def test_an_address_is_not_repeated_in_what_is_said_of_it(url: str) -> None:
    assert "secret-token" not in refusal(url)


@pytest.mark.parametrize("size", ["-1", "-5", "zz"])
def test_a_chunk_of_an_impossible_size_is_refused_and_not_read_without_end(size: str) -> None:
    """http.client reads whatever comes where a chunk has the size -1."""
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
            PictureDownloader(max_bytes=1000, allow_private=True).read(f"http://127.0.0.1:{port}/x")
        thread.join(300)
    assert taken < 50 << 20
