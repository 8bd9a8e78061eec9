"""Cursors: opaque, signed texts that hold which products were shown, so that no page repeats one.

Layout: one version byte, 16 bytes of the search's fingerprint, the deflated JSON list of skus, then
16 bytes of an HMAC-SHA256 over all before them; in base64url without padding.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import zlib
from collections.abc import Callable, Sequence
from functools import cached_property

from app.api.problems import BadCursor

VERSION = b"\x01"
FINGERPRINT_BYTES = 16
SIGNATURE_BYTES = 16

MAX_SHOWN = 5000
"""Products that the pages of one search show, fold, or leave out because an earlier one has shown
the same product; the last of these pages has no cursor."""


class Cursors:
    """Makes and reads cursors. `secret` gives the key that all processes share; called once."""

    def __init__(self, secret: Callable[[], bytes]) -> None:
        self._read_secret = secret

    @cached_property
    def _secret(self) -> bytes:
        return self._read_secret()

    def seal(self, fingerprint: bytes, shown: Sequence[str]) -> str | None:
        """The cursor after pages that showed these skus; None if these are too many.

        `fingerprint` (16 bytes) is that of the search.
        """
        if len(shown) > MAX_SHOWN:
            return None
        skus = json.dumps(list(shown), ensure_ascii=False, separators=(",", ":"))
        content = VERSION + fingerprint + zlib.compress(skus.encode(), 9)
        return base64.urlsafe_b64encode(content + self._sign(content)).rstrip(b"=").decode()

    def open(self, cursor: str, fingerprint: bytes) -> tuple[str, ...]:
        """The skus that were shown. Raises BadCursor for a cursor that is not of this search."""
        try:
            padding = "=" * (-len(cursor) % 4)
            sealed = base64.b64decode(cursor + padding, altchars=b"-_", validate=True)
        except (ValueError, binascii.Error) as exc:
            raise BadCursor() from exc
        content, signature = sealed[:-SIGNATURE_BYTES], sealed[-SIGNATURE_BYTES:]
        head = VERSION + fingerprint
        if not hmac.compare_digest(signature, self._sign(content)) or not content.startswith(head):
            raise BadCursor()
        return tuple(json.loads(zlib.decompress(content[len(head) :])))

    def _sign(self, content: bytes) -> bytes:
        return hmac.new(self._secret, content, hashlib.sha256).digest()[:SIGNATURE_BYTES]
