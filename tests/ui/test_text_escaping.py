"""Text on the page is shown letter for letter, whatever Streamlit makes of Markdown."""

from __future__ import annotations

import pytest

from app.ui.formatting import escape_markdown


@pytest.mark.parametrize(
    ("words", "parted"),
    [
        ("a -> b", r"a \-\u200b\> b"),
        ("A--1", "A\\-\u200b\\-1"),
        ("see https://x.example", "see https\\:\u200b\\/\\/x\\.example"),
        ("www.x.example", "www\u200b\\.x\\.example"),
        ("me@x.example", "me\u200b\\@x\\.example"),
        ("Kestrel coat", "Kestrel coat"),
    ],
)
def test_what_would_become_an_arrow_or_a_link_is_parted(words: str, parted: str) -> None:
    assert escape_markdown(words) == parted.replace(r"\u200b", "\u200b")
