"""Text that PostgreSQL can store: no NUL characters, no lone surrogates."""

from __future__ import annotations

from app.errors import BadInput


def check_text(what: str, text: str) -> None:
    """Raise BadInput for text that PostgreSQL cannot hold: with NUL, or not made of characters.

    Python reads bytes that are no text as lone surrogates (U+D800 to U+DFFF).
    """
    if "\0" in text:
        raise BadInput(f"The {what} {text!r} holds a NUL character; leave it out.")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise BadInput(f"The {what} {text!r} is not text; write it in UTF-8.")
