"""Moments, spans and sizes in words, as all pages show them."""

from __future__ import annotations

import re
from base64 import b64encode
from datetime import datetime
from html import escape
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st

SPANS = ((86_400, "d"), (3_600, "h"), (60, "min"))


SIZES = ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB"))


def when(moment: datetime | None) -> str:
    """A moment by the clock of whoever looks at the page; '' for none."""
    if moment is None:
        return ""
    try:
        zone = ZoneInfo(st.context.timezone or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        zone = ZoneInfo("UTC")
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M}"


def span(seconds: float) -> str:
    """A span of time, rounded down to its largest unit."""
    for length, unit in SPANS:
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def size(count: int) -> str:
    """A number of bytes."""
    for length, unit in SIZES:
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count} bytes"


DISLIKED = re.compile(r"(?<=<)(?=/)|(?<=[-!\]])(?=>)")
"""Inside an end tag, and before the end of a comment: Streamlit's sanitiser drops an attribute in
which it finds one, although it can end nothing there."""


def attribute(words: str) -> str:
    """Any text as the value of an attribute, with its quotes; spaces of no width keep it whole."""
    return f'"{escape(DISLIKED.sub(chr(0x200B), words))}"'


def data_url(jpeg: bytes) -> str:
    """A JPEG as an address that needs no other machine."""
    return f"data:image/jpeg;base64,{b64encode(jpeg).decode('ascii')}"


def image(jpeg: bytes, alt: str) -> str:
    """A JPEG and what it shows in words."""
    return f'<img alt={attribute(alt)} src="{data_url(jpeg)}">'
