"""Parses and checks the URLs that pictures are downloaded from, and resolves redirects."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from app.errors import BadImage

MAX_CHARACTERS = 4096
"""Of a URL; signed URLs of object stores have about two thousand."""

PORTS = {"http": 80, "https": 443}

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")
_HOST = re.compile(r"[a-z0-9._:-]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PictureUrl:
    """A checked URL: `host` in ASCII without brackets, `path` with its query, percent-encoded."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The Host header: the host, and the port where it is not the default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def join(self, location: str) -> PictureUrl:
        """The target of a redirect from this URL. Raises BadImage as `parse` does."""
        try:
            target = urljoin(f"{self.scheme}://{self.authority}{self.path}", location)
        except ValueError as exc:
            raise BadImage(
                "This web address redirects to something that is none; open it in a browser."
            ) from exc
        return parse(target)


def is_address(name: str) -> bool:
    """Whether a name is a web address, not that of a file."""
    return name.lower().startswith(("http://", "https://"))


def parse(text: str) -> PictureUrl:
    """Check and split a URL that a person typed or a server redirects to.

    Raises BadImage with what to do; the text never contains the URL, which may hold a secret.
    """
    text = text.strip()
    _check_characters(text)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
        query = quote(parts.query, safe="/%:@!$&'()*+,;=~?[]|")
    except ValueError as exc:
        raise BadImage("This is no valid web address; copy it again.") from exc
    if parts.scheme not in PORTS:
        raise BadImage(
            "A web address must begin with http:// or https://; copy the whole address of the "
            "picture."
        )
    if "@" in parts.netloc:
        raise BadImage(
            "This web address contains a user name or a password, which are not sent. Download "
            "the picture and upload its file."
        )
    if not host or port == 0:
        raise BadImage("This web address has no host or no valid port; copy it again.")
    path += f"?{query}" if query else ""
    return PictureUrl(parts.scheme, _ascii(host), port or PORTS[parts.scheme], path)


def _check_characters(text: str) -> None:
    if not text:
        raise BadImage("The web address is empty; copy the address of a picture.")
    if len(text) > MAX_CHARACTERS:
        raise BadImage(
            f"This web address has {len(text):,} characters; at most {MAX_CHARACTERS:,} are "
            "allowed. Download the picture and upload its file."
        )
    # urlsplit silently removes some of these, and then reads another URL.
    if _FORBIDDEN.search(text):
        raise BadImage(
            "A web address contains no spaces, backslashes or control characters; copy it again, "
            "with %20 for a space."
        )


def _ascii(host: str) -> str:
    """The host as DNS and certificates spell it (IDNA)."""
    try:
        name = host.encode("idna").decode("ascii").rstrip(".")
    except UnicodeError:
        name = ""
    if not _HOST.fullmatch(name):
        raise BadImage("The host in this web address is not valid; copy it again.")
    return name
