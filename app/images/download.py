"""Downloads pictures and feeds by URL, within limits on addresses, time, size and redirects.

Anyone who uses the page may name a URL, so it may be hostile: no private address is connected to
(server-side request forgery), and no port but those of web servers; no large file is kept, and a
slow server is abandoned. No error message repeats what a server sent: it would be shown as ours.
httpcore is the transport of httpx; it follows no redirects, keeps no cookies, decompresses nothing,
and reads no proxies or credentials from the environment.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from io import BytesIO
from typing import BinaryIO

from httpcore2 import URL, HTTPConnection, ProtocolError, Request, Response

from app.errors import BadImage
from app.images.kept_connections import KeptConnections
from app.images.public_network import Deadline, PublicNetwork
from app.images.url import PORTS, PictureUrl, parse

MAX_REDIRECTS = 5
REDIRECT_STATUSES = {301, 302, 303, 307, 308}
FRAMING_BYTES = 1 << 20
"""Bytes of headers and chunk framing that are received in addition to the picture."""

RETRY_STATUSES = {429, 500, 502, 503, 504}
"""A server that answers with one of these may answer otherwise in a moment (RFC 9110, RFC 6585)."""

NOT_MODIFIED = 304

_SENDABLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,998}[\x21-\x7e])?")
"""A header value that may be sent back as it came."""

HEADERS = {
    "User-Agent": "Lookalike",
    "Accept-Encoding": "identity",  # a few compressed KB could expand to any size
}
HTML_TYPES = ("text/html", "application/xhtml+xml")
HTML_STARTS = (b"<!doctype html", b"<html")
"""How a web page starts that is sent as another content type."""


class TryLater(BadImage):
    """The server may answer in a moment; `after_s` is how long it asks to wait, if it does."""

    def __init__(self, message: str, after_s: float | None = None) -> None:
        super().__init__(message)
        self.after_s = after_s


@dataclass(frozen=True, slots=True)
class Validators:
    """What a server said of the version of a file: ETag and Last-Modified, empty if it did not."""

    etag: str = ""
    last_modified: str = ""

    def __bool__(self) -> bool:
        return bool(self.etag or self.last_modified)


NO_VALIDATORS = Validators()


@dataclass(frozen=True, slots=True)
class FileKind:
    """What is downloaded: its noun, the Accept header, and what to do if it cannot be."""

    noun: str
    accept: str
    instead: str
    too_large: str


PICTURE = FileKind(
    "picture", "image/*,*/*;q=0.5", "download the picture and upload its file.",
    "Make the file smaller and upload it.",
)  # fmt: skip
FEED = FileKind(
    "feed", "*/*", "download the feed and name its file.", "Split it into several feeds."
)


class Downloader:
    """Downloads files of one kind by URL. Safe to use from several threads.

    `max_bytes` is the largest file that is read, `timeout_s` the time for one whole download,
    redirects and name lookups included. Only these `ports` are connected to; None allows any. With
    `allow_private`, hosts may have private and loopback addresses: for tests, and for catalogues
    inside a company's network. With `keep_alive`, connections stay open for the next download from
    the same server; close it at the end.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        ports: Collection[int] | None = tuple(PORTS.values()),
        allow_private: bool = False,
        timeout_s: float = 10.0,
        kind: FileKind = PICTURE,
        keep_alive: bool = False,
    ) -> None:
        self._max_bytes = max_bytes
        self._ports = ports
        self._allow_private = allow_private
        self._timeout_s = timeout_s
        self._kind = kind
        self._kept = KeptConnections() if keep_alive else None
        self._tls = _SharedContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls.load_default_certs()
        self._tls.verify_flags = ssl.create_default_context().verify_flags

    def close(self) -> None:
        """Close the connections that are kept."""
        if self._kept is not None:
            self._kept.close()

    def read(self, text: str) -> bytes:
        """The bytes at a URL; not checked to be a picture. Raises BadImage with what to do."""
        body = BytesIO()
        self.fetch(text, body)
        return body.getvalue()

    def fetch(
        self, text: str, body: BinaryIO, known: Validators = NO_VALIDATORS
    ) -> Validators | None:
        """Write the file at a URL to `body`; returns its validators.

        None, and nothing is written, if the file is still that of the validators `known`. After an
        error `body` may hold a part. Raises BadImage with what to do, TryLater if the server may
        answer in a moment.
        """
        url = parse(text)
        network = PublicNetwork(
            Deadline(self._timeout_s), allow_private=self._allow_private,
            max_bytes=2 * self._max_bytes + FRAMING_BYTES,
        )  # fmt: skip
        shown = url.host
        for _ in range(MAX_REDIRECTS + 1):
            self._check_port(url)
            result = self._get(url, shown, network, body, known)
            if not isinstance(result, PictureUrl):
                return result
            if result.host != url.host:
                shown = "A host that this web address redirects to"
            url = result
        raise BadImage(
            f"This web address was redirected more than {MAX_REDIRECTS} times. Open it in a "
            f"browser and copy the address of the {self._kind.noun} itself."
        )

    def _check_port(self, url: PictureUrl) -> None:
        if self._ports is not None and url.port not in self._ports:
            allowed = ", ".join(map(str, sorted(self._ports)))
            raise BadImage(
                f"{self._kind.noun.capitalize()}s are downloaded from port {allowed} only; the "
                "operator may name others in LOOKALIKE_LINK_PORTS. "
                f"{self._kind.instead.capitalize()}"
            )

    def _get(
        self,
        url: PictureUrl,
        shown: str,
        network: PublicNetwork,
        body: BinaryIO,
        known: Validators,
    ) -> Validators | PictureUrl | None:
        """Write the body at `url`; returns its validators, or the URL that it redirects to.

        Errors name its host as `shown`.
        """
        target = URL(
            scheme=url.scheme.encode(), host=url.host.encode(), port=url.port,
            target=url.path.encode(),
        )  # fmt: skip
        headers = [("Host", url.authority), ("Accept", self._kind.accept), *HEADERS.items()]
        headers += [("If-None-Match", known.etag)] if known.etag else []
        headers += [("If-Modified-Since", known.last_modified)] if known.last_modified else []
        instead = self._kind.instead
        try:
            with self._response(target, headers, network.named(shown)) as response:
                location = _header(response, "location")
                if response.status in REDIRECT_STATUSES and location:
                    return url.join(location)
                if response.status == NOT_MODIFIED and known:
                    response.read()  # nothing; the connection can be used again then
                    return None
                _check_head(response, shown, self._kind)
                self._write_body(response, shown, body)
                return _validators(response)
        except TimeoutError as exc:
            raise TryLater(
                f"{shown} took longer than {self._timeout_s:g} seconds; try again, or {instead}"
            ) from exc
        except ssl.SSLCertVerificationError as exc:
            raise BadImage(f"{shown} has no valid TLS certificate; {instead}") from exc
        except (OSError, ProtocolError, ValueError) as exc:  # ValueError: an integer too long
            raise TryLater(f"{shown} cannot be read from: {_reason(exc)}; {instead}") from exc

    @contextmanager
    def _response(
        self, target: URL, headers: list[tuple[str, str]], network: PublicNetwork
    ) -> Iterator[Response]:
        """The response to a request, over a connection that was kept if there is one."""
        if self._kept is None:
            headers = [*headers, ("Connection", "close")]
        request = Request("GET", target, headers=headers)
        connection, response = self._begun(request, network)
        try:
            with closing(response):
                yield response
        except BaseException:
            connection.close()
            raise
        if self._kept is None:
            connection.close()
        else:
            self._kept.give(target.origin, connection, response)

    def _begun(self, request: Request, network: PublicNetwork) -> tuple[HTTPConnection, Response]:
        """A connection, and the response that begins on it."""
        origin = request.url.origin
        kept = None if self._kept is None else self._kept.take(origin, network)
        if kept is not None:
            try:
                return kept, kept.handle_request(request)
            except (ConnectionError, ProtocolError, ssl.SSLError):
                # A server may close an idle connection at any time; then another one is opened.
                kept.close()
            except BaseException:
                kept.close()
                raise
        connection = HTTPConnection(origin, self._tls, network_backend=network)
        try:
            return connection, connection.handle_request(request)
        except BaseException:
            connection.close()
            raise

    def _write_body(self, response: Response, host: str, body: BinaryIO) -> None:
        too_large = BadImage(
            f"{host} sends more than the {self._max_bytes:,} bytes that are allowed. "
            f"{self._kind.too_large}"
        )
        chunked = bool(_header(response, "transfer-encoding"))  # it overrides the length
        length = 0 if chunked else int(_header(response, "content-length") or 0)
        if length > self._max_bytes:
            raise too_large
        start, received = b"", 0
        try:
            for part in response.iter_stream():
                start += part[: 1000 - len(start)]
                received += len(part)
                if received > self._max_bytes:
                    raise too_large
                body.write(part)
        except ProtocolError as exc:
            if received < length:
                raise TryLater(f"{host} broke off the connection; try again.") from exc
            raise
        if start.lstrip().lower().startswith(HTML_STARTS):
            raise _web_page(host, self._kind)


class _SharedContext(ssl.SSLContext):
    """A context that all threads share: httpcore sets ALPN protocols on it for each connection."""

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Keep the context unchanged: HTTP/1.1 needs no ALPN."""


def _header(response: Response, name: str) -> str:
    """The value of a header by its name in lower case; empty if the response lacks it."""
    values = (value for key, value in response.headers if key.lower() == name.encode())
    return next(values, b"").decode("utf-8", "replace")


def _validators(response: Response) -> Validators:
    """The validators of a response; those that cannot be sent back are dropped."""
    values = (_header(response, name) for name in ("etag", "last-modified"))
    return Validators(*(value if _SENDABLE.fullmatch(value) else "" for value in values))


def _check_head(response: Response, host: str, kind: FileKind) -> None:
    """Raise BadImage unless the file may follow."""
    if response.status != 200:
        message = (
            f"{host} answered with status {response.status} instead of a {kind.noun}. Check in a "
            "browser that the address is right."
        )
        if response.status in RETRY_STATUSES:
            raise TryLater(message, _retry_after(_header(response, "retry-after")))
        raise BadImage(message)
    encoding = _header(response, "content-encoding").lower()
    if encoding not in ("", "identity"):
        raise BadImage(f"{host} sends the {kind.noun} compressed; {kind.instead}")
    if _header(response, "content-type").partition(";")[0].strip().lower() in HTML_TYPES:
        raise _web_page(host, kind)


def _retry_after(value: str) -> float | None:
    """Seconds that a Retry-After header asks to wait, as a number or as a date (RFC 9110, 10.2.3);
    None if it asks for none."""
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _web_page(host: str, kind: FileKind) -> BadImage:
    return BadImage(
        f"{host} answered with a web page, not a {kind.noun}; copy the address of the {kind.noun} "
        "itself."
    )


def _reason(exc: Exception) -> str:
    """Why reading failed, in words of the system or ours: those of httpcore quote the server."""
    if isinstance(exc, OSError):
        return exc.strerror or str(exc) or "the connection failed"
    return "it does not answer as a web server does"
