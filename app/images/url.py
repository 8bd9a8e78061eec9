"""Web addresses: what one says, which ones are fetched, and where a redirect leads."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from app.errors import BadImage

LONGEST = 4096
"""Characters of an address; signed addresses of picture stores have some two thousand."""

PORTS = {"http": 80, "https": 443}

_UNSPEAKABLE = re.compile(r"[\x00-\x20\x7f\\]")
_HOST = re.compile(r"[a-z0-9._:-]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PictureUrl:
    """Where a picture lies: `host` in ASCII without brackets, `path` with its query, quoted."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The host as requests name it, with its port where that is not the usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def after(self, location: str) -> PictureUrl:
        """Where a redirect from here leads. Raises BadImage as `parse` does."""
        try:
            joined = urljoin(f"{self.scheme}://{self.authority}{self.path}", location)
        except ValueError as exc:
            raise BadImage(f"{self.host} sends on to something that is no address.") from exc
        return parse(joined)


def parse(url: str) -> PictureUrl:
    """What an address says. Raises BadImage, saying what to do, for one that is not fetched."""
    url = url.strip()
    _check_spelling(url)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
        query = quote(parts.query, safe="/%:@!$&'()*+,;=~?[]|")
    except ValueError as exc:
        raise BadImage("This is no web address that can be read; copy it again.") from exc
    if parts.scheme not in PORTS:
        raise BadImage(
            "Only web addresses that begin with http:// or https:// are fetched; copy the whole "
            "address of the picture."
        )
    if "@" in parts.netloc:
        raise BadImage(
            "This address holds a user name or a password, which are not sent anywhere. Download "
            "the picture and upload its file."
        )
    if not host or port == 0:
        raise BadImage("This web address names no host that can be asked; copy it again.")
    path += f"?{query}" if query else ""
    return PictureUrl(parts.scheme, _ascii(host), port or PORTS[parts.scheme], path)


def _check_spelling(url: str) -> None:
    if not url:
        raise BadImage("The web address is empty; copy the address of a picture.")
    if len(url) > LONGEST:
        raise BadImage(
            f"This web address has {len(url):,} characters; up to {LONGEST:,} are read. Download "
            "the picture and upload its file."
        )
    # urlsplit takes some of these out without a word, and then reads another address.
    if _UNSPEAKABLE.search(url):
        raise BadImage(
            "A web address holds no spaces, backslashes or control characters; copy it again, "
            "with %20 for a space."
        )


def _ascii(host: str) -> str:
    """A host as the name service and certificates spell it."""
    try:
        spelled = host.encode("idna").decode("ascii").rstrip(".")
    except UnicodeError:
        spelled = ""
    if not _HOST.fullmatch(spelled):
        raise BadImage("The host that this web address names cannot exist; copy it again.")
    return spelled
