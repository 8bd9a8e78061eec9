"""Moments, spans and sizes in words, as all pages show them."""

from __future__ import annotations

from datetime import datetime
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
