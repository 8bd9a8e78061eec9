"""A site to download pictures from: it responds by path, well or badly, on a loopback port."""

from __future__ import annotations

import gzip
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import unquote

import pytest

from app.errors import BadImage
from app.images.download import Downloader
from support.colours import photo

LIMIT = 10_000
PICTURE = photo(1)

LAST = "/picture?é".encode().decode("latin-1")
"""The target of the redirects, in the encoding of an HTTP header."""

HERE = "93.184.216.35"
"""A public address that these tests route to this machine."""


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


NEAR = Downloader(max_bytes=LIMIT, ports=None, allow_private=True, timeout_s=5)


def refusal(url: str, pictures: Downloader = NEAR) -> str:
    """The error message with which a URL is refused."""
    with pytest.raises(BadImage) as caught:
        pictures.read(url)
    message = str(caught.value)
    assert message.endswith("."), message
    return message
