"""Text for the pages: numbers, prices, times, durations and sizes as the language of the session
writes them; escaping for Markdown and HTML."""

from __future__ import annotations

import re
from base64 import b64encode
from datetime import datetime
from decimal import Decimal
from html import escape
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st
from babel import dates, numbers

from app.types import Count, Product
from app.ui.translation import N_, _, locale

TIME_UNITS = ((86_400, N_("{number} d")), (3_600, N_("{number} h")), (60, N_("{number} min")))
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


def format_number(number: float) -> str:
    """A number without decimals, in groups of digits."""
    return numbers.format_decimal(round(number), locale=locale())


def format_decimal(number: float, decimals: int) -> str:
    """A number with this many decimals."""
    pattern = f"#,##0.{'0' * decimals}" if decimals else "#,##0"
    number = round(number, decimals) or 0.0  # there is no -0.00
    return numbers.format_decimal(number, pattern, locale=locale())


def format_measure(number: float) -> str:
    """A number with as many decimals as it has, up to four, without groups of digits."""
    return numbers.format_decimal(number, "0.####", locale=locale())


def format_percent(share: float) -> str:
    """A share (0 to 1) in whole percent."""
    return numbers.format_percent(share, locale=locale())


def format_count(count: Count) -> str:
    """A number of products, "more than 1,000" where only so many were counted."""
    number = format_number(count.products)
    return _("more than {number}").format(number=number) if count.more else number


def format_price(product: Product) -> str:
    """The price in its currency; empty where there is no price."""
    if product.price is None:
        return ""
    return price_text(product.price, product.currency)


def price_text(price: Decimal, currency: str | None) -> str:
    """A price with the symbol of its currency, or with the code of one that has none."""
    here = locale()
    code = (currency or "").strip()
    if re.fullmatch("[A-Z]{3}", code) and numbers.get_currency_symbol(code, here) != code:
        return numbers.format_currency(price, code, locale=here)
    return f"{format_decimal(float(price), 2)} {code}".strip()


def format_time(moment: datetime | None) -> str:
    """A moment in the time zone of the browser; '' for None."""
    if moment is None:
        return ""
    try:
        zone = ZoneInfo(st.context.timezone or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        zone = ZoneInfo("UTC")
    here, local = locale(), moment.astimezone(zone)
    day = dates.format_date(local, "medium", locale=here)
    return f"{day}, {dates.format_time(local, 'short', locale=here)}"


def format_duration(seconds: float) -> str:
    """A duration in its largest unit."""
    for length, unit in TIME_UNITS:
        if seconds >= length:
            return _(unit).format(number=format_decimal(seconds / length, 0))
    return _("{number} s").format(number=format_decimal(seconds, 1 if seconds < 10 else 0))


def format_size(count: int) -> str:
    """A number of bytes in its largest unit."""
    for length, unit in SIZE_UNITS:
        if count >= length:
            return f"{format_decimal(count / length, 1)} {unit}"
    return _("{number} bytes").format(number=count)


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
