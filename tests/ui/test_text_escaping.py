"""Escaping of text that Streamlit would read as Markdown."""

from __future__ import annotations

import pytest

from app.ui.formatting import escape_markdown


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("a -> b", r"a \-\u200b\> b"),
        ("A--1", "A\\-\u200b\\-1"),
        ("see https://x.example", "see https\\:\u200b\\/\\/x\\.example"),
        ("www.x.example", "www\u200b\\.x\\.example"),
        ("me@x.example", "me\u200b\\@x\\.example"),
        ("Kestrel coat", "Kestrel coat"),
    ],
)
def test_arrows_dashes_and_links_are_broken_by_zero_width_spaces(words: str, expected: str) -> None:
    assert escape_markdown(words) == expected.replace(r"\u200b", "\u200b")
