"""Markup: text and pictures as parts of HTML that show them as they are, and do nothing else."""

from __future__ import annotations

import re
from base64 import b64encode
from html import escape

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
