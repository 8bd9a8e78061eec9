"""Text for the pages: times, durations and sizes; escaping for Markdown and HTML."""

from __future__ import annotations

import re
from base64 import b64encode
from datetime import datetime
from html import escape
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st

TIME_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))
SIZE_UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
"""As the command line counts them."""

ZERO_WIDTH_SPACE = "\u200b"

AUTOLINK_BREAKS = re.compile(
    r"(?<=[-<>=~])(?=[-<>=~])|(?<=:)(?=//)|(?<=www)(?=\.)|(?=@)", re.IGNORECASE
)
"""Positions inside arrows, dashes and links, which Streamlit makes of plain text."""

SANITIZER_BREAKS = re.compile(r"(?<=<)(?=/)|(?<=[-!\]])(?=>)")
"""Positions inside an end tag and a comment end: Streamlit's sanitizer drops an attribute that
contains one, although it is harmless there."""


def format_time(moment: datetime | None) -> str:
    """A moment in the time zone of the browser; '' for None."""
    if moment is None:
        return ""
    try:
        zone = ZoneInfo(st.context.timezone or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        zone = ZoneInfo("UTC")
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M}"


def format_duration(seconds: float) -> str:
    """A duration in its largest unit."""
    for length, unit in TIME_UNITS:
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def format_size(count: int) -> str:
    """A number of bytes in its largest unit."""
    for length, unit in SIZE_UNITS:
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count} bytes"


def escape_markdown(text: str) -> str:
    """Markdown that shows the text literally, with runs of white space as one space.

    Escaping does not keep Streamlit from making arrows, dashes and links of text, but spaces of
    zero width do.
    """
    line = AUTOLINK_BREAKS.sub(ZERO_WIDTH_SPACE, " ".join(text.split()))
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", line)


def html_attribute(text: str) -> str:
    """Any text as a quoted value of an HTML attribute, safe from Streamlit's sanitizer."""
    return f'"{escape(SANITIZER_BREAKS.sub(ZERO_WIDTH_SPACE, text))}"'


def data_url(jpeg: bytes) -> str:
    """A JPEG as a data URL."""
    return f"data:image/jpeg;base64,{b64encode(jpeg).decode('ascii')}"


def img_tag(jpeg: bytes, alt: str) -> str:
    """An HTML image of a JPEG with its alternative text."""
    return f'<img alt={html_attribute(alt)} src="{data_url(jpeg)}">'
