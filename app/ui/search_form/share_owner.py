"""Which shared links are a visitor's own: the browser that made one keeps a signature of its id.

Everybody with a link knows its id. The signature, in a cookie, shows after a reload, or tomorrow,
that this browser made it, so that it can end it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

import streamlit as st

from app.ui.shared import services

COOKIE = "lookalike-shares"
"""Cookie of the links that were made last, as `id:signature`, separated by dots."""

MOST = 8
"""Links that a browser remembers, so that the cookie stays small."""

SECRET = "shared links of the page"
"""Name of the secret that all processes sign with."""

SIGNATURE_BYTES = 16

SCRIPT = """<script>{
  const own = "OWN"; // id:signature; without a signature the link is forgotten
  const known = document.cookie.match(/(?:^|; )COOKIE=([^;]*)/)?.[1] ?? "";
  const others = known.split(".").filter((each) => each && !each.startsWith(own.split(":")[0]));
  const kept = (own.endsWith(":") ? others : [own, ...others]).slice(0, MOST);
  const safe = location.protocol === "https:" ? "; Secure" : "";
  document.cookie =
    `COOKIE=${kept.join(".")}; path=/; max-age=${kept.length && SECONDS}; SameSite=Lax${safe}`;
}</script>"""


def is_own(id_: str) -> bool:
    """Whether the cookies that this session began with show that the browser made a link."""
    entries = st.context.cookies.get(COOKIE, "").split(".")
    signatures = [sign for each in entries for own, _, sign in [each.partition(":")] if own == id_]
    return any(hmac.compare_digest(sign.encode(), _signature(id_).encode()) for sign in signatures)


def keep(id_: str) -> None:
    """Let the browser remember that it made a link, as long as that lasts."""
    _run(f"{id_}:{_signature(id_)}")


def forget(id_: str) -> None:
    """Let the browser forget a link."""
    _run(f"{id_}:")


def _run(own: str) -> None:
    seconds = int(services().settings.share_hours * 3600)
    script = SCRIPT.replace("OWN", own).replace("COOKIE", COOKIE)
    script = script.replace("MOST", str(MOST)).replace("SECONDS", str(seconds))
    st.html(script, unsafe_allow_javascript=True)


def _signature(id_: str) -> str:
    key = services().api_keys.shared_secret(SECRET)
    digest = hmac.new(key, id_.encode(), hashlib.sha256).digest()[:SIGNATURE_BYTES]
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
