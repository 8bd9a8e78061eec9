"""The bytes of a picture that a web address names, fetched by rules that keep strangers harmless.

Whoever may name an address may make this machine ask for it: so nothing private is asked, nothing
large is kept, and nobody is waited for long.
"""

from __future__ import annotations

import ssl
from http.client import HTTPException, HTTPResponse

from app.errors import BadImage
from app.images.http_connection import answer
from app.images.public_address import Deadline
from app.images.url import PictureUrl, parse

REDIRECTS = 5
REDIRECTING = {301, 302, 303, 307, 308}
FRAMING = 1 << 20
"""Bytes of head and chunk sizes that are read beside the picture."""

AT_ONCE = 65_536

PAGES = ("text/html", "application/xhtml+xml")
BEGINNINGS = (b"<!doctype html", b"<html")
"""How a web page begins that says it is something else."""

INSTEAD = "Download the picture and upload its file."


class PictureDownloader:
    """Pictures by their web address. Safe to use from several threads.

    `max_bytes` is the largest file that is read, `timeout_s` the time for all of one picture,
    redirects and name lookups included. With `allow_private`, addresses may lead to private and
    loopback addresses: for tests, and for catalogues inside a company's network.
    """

    def __init__(
        self, *, max_bytes: int, allow_private: bool = False, timeout_s: float = 10.0
    ) -> None:
        self._max_bytes = max_bytes
        self._allow_private = allow_private
        self._timeout_s = timeout_s
        self._tls = ssl.create_default_context()

    def read(self, url: str) -> bytes:
        """The bytes behind an address. Raises BadImage with a sentence that says what to do.

        They need not be a picture: whoever decodes them finds out.
        """
        address = parse(url)
        deadline = Deadline(self._timeout_s)
        for _ in range(REDIRECTS + 1):
            found = self._ask(address, deadline)
            if isinstance(found, bytes):
                return found
            address = found
        raise BadImage(
            f"This web address was sent on more than {REDIRECTS} times. Open it in a browser and "
            "copy the address of the picture itself."
        )

    def _ask(self, address: PictureUrl, deadline: Deadline) -> bytes | PictureUrl:
        """What lies at an address, or the address that it was moved to."""
        try:
            with answer(
                address, deadline, self._tls,
                allow_private=self._allow_private, most=2 * self._max_bytes + FRAMING,
            ) as response:  # fmt: skip
                if (location := _location(response)) is not None:
                    return address.after(location)
                _check_head(response, address)
                return self._body(response, address)
        except TimeoutError as exc:
            raise BadImage(
                f"{address.host} took longer than {self._timeout_s:g} seconds. Try again, or "
                f"{INSTEAD[0].lower()}{INSTEAD[1:]}"
            ) from exc
        except ssl.SSLCertVerificationError as exc:
            raise BadImage(
                f"{address.host} does not prove that it is {address.host}: "
                f"{exc.verify_message}. {INSTEAD}"
            ) from exc
        except BadImage:
            raise
        except (OSError, HTTPException, ValueError) as exc:  # the last of a negative chunk size
            raise BadImage(f"{address.host} cannot be read from: {_said(exc)}. {INSTEAD}") from exc

    def _body(self, response: HTTPResponse, address: PictureUrl) -> bytes:
        if response.length is not None and response.length > self._max_bytes:
            raise self._too_large(address)
        data = bytearray()
        while part := response.read(AT_ONCE):
            data += part
            if len(data) > self._max_bytes:
                raise self._too_large(address)
        if response.length:
            raise BadImage(f"{address.host} broke off in the middle of the picture; try again.")
        if data[:AT_ONCE].lstrip().lower().startswith(BEGINNINGS):
            raise _page(address)
        return bytes(data)

    def _too_large(self, address: PictureUrl) -> BadImage:
        return BadImage(
            f"The file at {address.host} has more than the {self._max_bytes:,} bytes that are "
            "read. Make it smaller and upload it."
        )


def _location(response: HTTPResponse) -> str | None:
    """Where an answer sends on to, if it does."""
    location = response.headers.get("Location")
    if response.status not in REDIRECTING or not location:
        return None
    # Headers are read as Latin-1; what servers write in them besides ASCII is UTF-8.
    return location.encode("latin-1").decode("utf-8", "replace")


def _check_head(response: HTTPResponse, address: PictureUrl) -> None:
    """Raise BadImage unless a picture may follow."""
    if response.status != 200:
        said = f"{response.status} {response.reason[:60]}".strip()
        raise BadImage(
            f"{address.host} answered {said!r} instead of a picture. Check in a browser that the "
            "address is right."
        )
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise BadImage(f"{address.host} sends the picture compressed ({encoding!r}). {INSTEAD}")
    if response.headers.get_content_type() in PAGES:
        raise _page(address)


def _page(address: PictureUrl) -> BadImage:
    return BadImage(
        f"What lies at {address.host} is a web page, not a picture; copy the address of the "
        "picture itself."
    )


def _said(exc: Exception) -> str:
    """What went wrong, in the words of the system or of Python."""
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return f"{type(exc).__name__} {exc}".strip()[:200].rstrip(".")
