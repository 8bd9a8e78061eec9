"""Downloads a picture from a URL, within limits on addresses, time, size and redirects.

Anyone who uses the page may name a URL, so it may be hostile: no private address is connected to
(server-side request forgery), and no port but those of web servers; no large file is kept, and a
slow server is abandoned. No error message repeats what a server sent: it would be shown as ours.
httpcore is the transport of httpx; it follows no redirects, keeps no cookies, decompresses nothing,
and reads no proxies or credentials from the environment.
"""

from __future__ import annotations

import ssl
from collections.abc import Collection, Iterable

from httpcore2 import URL, HTTPConnection, ProtocolError, Response

from app.errors import BadImage
from app.images.public_network import Deadline, PublicNetwork
from app.images.url import PORTS, PictureUrl, parse

MAX_REDIRECTS = 5
REDIRECT_STATUSES = {301, 302, 303, 307, 308}
FRAMING_BYTES = 1 << 20
"""Bytes of headers and chunk framing that are received in addition to the picture."""

HEADERS = {
    "User-Agent": "Lookalike",
    "Accept": "image/*,*/*;q=0.5",
    "Accept-Encoding": "identity",  # a few compressed KB could expand to any size
    "Connection": "close",
}
HTML_TYPES = ("text/html", "application/xhtml+xml")
HTML_STARTS = (b"<!doctype html", b"<html")
"""How a web page starts that is sent as another content type."""

INSTEAD = "download the picture and upload its file."


class PictureDownloader:
    """Downloads pictures by URL. Safe to use from several threads.

    `max_bytes` is the largest file that is read, `timeout_s` the time for one whole download,
    redirects and name lookups included. Only these `ports` are connected to; None allows any. With
    `allow_private`, hosts may have private and loopback addresses: for tests, and for catalogues
    inside a company's network.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        ports: Collection[int] | None = tuple(PORTS.values()),
        allow_private: bool = False,
        timeout_s: float = 10.0,
    ) -> None:
        self._max_bytes = max_bytes
        self._ports = ports
        self._allow_private = allow_private
        self._timeout_s = timeout_s
        self._tls = _SharedContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls.load_default_certs()
        self._tls.verify_flags = ssl.create_default_context().verify_flags

    def read(self, text: str) -> bytes:
        """The bytes at a URL; not checked to be a picture. Raises BadImage with what to do."""
        url = parse(text)
        network = PublicNetwork(
            Deadline(self._timeout_s), allow_private=self._allow_private,
            max_bytes=2 * self._max_bytes + FRAMING_BYTES,
        )  # fmt: skip
        shown = url.host
        for _ in range(MAX_REDIRECTS + 1):
            self._check_port(url)
            body_or_redirect = self._get(url, shown, network)
            if isinstance(body_or_redirect, bytes):
                return body_or_redirect
            if body_or_redirect.host != url.host:
                shown = "A host that this web address redirects to"
            url = body_or_redirect
        raise BadImage(
            f"This web address was redirected more than {MAX_REDIRECTS} times. Open it in a "
            "browser and copy the address of the picture itself."
        )

    def _check_port(self, url: PictureUrl) -> None:
        if self._ports is not None and url.port not in self._ports:
            allowed = ", ".join(map(str, sorted(self._ports)))
            raise BadImage(
                f"Pictures are downloaded from port {allowed} only. Download the picture and "
                "upload its file."
            )

    def _get(self, url: PictureUrl, shown: str, network: PublicNetwork) -> bytes | PictureUrl:
        """The body at `url`, or the URL that it redirects to; errors name its host as `shown`."""
        target = URL(
            scheme=url.scheme.encode(), host=url.host.encode(), port=url.port,
            target=url.path.encode(),
        )  # fmt: skip
        headers = [("Host", url.authority), *HEADERS.items()]
        try:
            with (
                HTTPConnection(
                    target.origin, self._tls, network_backend=network.named(shown)
                ) as connection,
                connection.stream("GET", target, headers=headers) as response,
            ):
                location = _header(response, "location")
                if response.status in REDIRECT_STATUSES and location:
                    return url.join(location)
                _check_head(response, shown)
                return self._body(response, shown)
        except TimeoutError as exc:
            raise BadImage(
                f"{shown} took longer than {self._timeout_s:g} seconds; try again, or {INSTEAD}"
            ) from exc
        except ssl.SSLCertVerificationError as exc:
            raise BadImage(f"{shown} has no valid TLS certificate; {INSTEAD}") from exc
        except (OSError, ProtocolError, ValueError) as exc:  # ValueError: an integer too long
            raise BadImage(f"{shown} cannot be read from: {_reason(exc)}; {INSTEAD}") from exc

    def _body(self, response: Response, host: str) -> bytes:
        too_large = BadImage(
            f"{host} sends more than the {self._max_bytes:,} bytes that are allowed. Make the file "
            "smaller and upload it."
        )
        chunked = bool(_header(response, "transfer-encoding"))  # it overrides the length
        length = 0 if chunked else int(_header(response, "content-length") or 0)
        if length > self._max_bytes:
            raise too_large
        body = bytearray()
        try:
            for part in response.iter_stream():
                body += part
                if len(body) > self._max_bytes:
                    raise too_large
        except ProtocolError as exc:
            if len(body) < length:
                raise BadImage(f"{host} broke off the connection; try again.") from exc
            raise
        if body[:1000].lstrip().lower().startswith(HTML_STARTS):
            raise _web_page(host)
        return bytes(body)


class _SharedContext(ssl.SSLContext):
    """A context that all threads share: httpcore sets ALPN protocols on it for each connection."""

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Keep the context unchanged: HTTP/1.1 needs no ALPN."""


def _header(response: Response, name: str) -> str:
    """The value of a header by its name in lower case; empty if the response lacks it."""
    values = (value for key, value in response.headers if key.lower() == name.encode())
    return next(values, b"").decode("utf-8", "replace")


def _check_head(response: Response, host: str) -> None:
    """Raise BadImage unless a picture may follow."""
    if response.status != 200:
        raise BadImage(
            f"{host} answered with status {response.status} instead of a picture. Check in a "
            "browser that the address is right."
        )
    encoding = _header(response, "content-encoding").lower()
    if encoding not in ("", "identity"):
        raise BadImage(f"{host} sends the picture compressed; {INSTEAD}")
    if _header(response, "content-type").partition(";")[0].strip().lower() in HTML_TYPES:
        raise _web_page(host)


def _web_page(host: str) -> BadImage:
    return BadImage(
        f"{host} answered with a web page, not a picture; copy the address of the picture itself."
    )


def _reason(exc: Exception) -> str:
    """Why reading failed, in words of the system or ours: those of httpcore quote the server."""
    if isinstance(exc, OSError):
        return exc.strerror or str(exc) or "the connection failed"
    return "it does not answer as a web server does"
