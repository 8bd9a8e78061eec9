"""Text that PostgreSQL can store: no NUL characters, no lone surrogates."""

from __future__ import annotations

from app.errors import BadInput


def check_text(name: str, text: str) -> None:
    """Raise BadInput, which calls the text by this name, if PostgreSQL cannot store it."""
    if "\0" in text:
        raise BadInput(f"The {name} {text!r} contains a NUL character; remove it.")
    if has_surrogates(text):
        raise BadInput(f"The {name} {text!r} is not text; write it in UTF-8.")


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can store the text."""
    return "\0" not in text and not has_surrogates(text)


def has_surrogates(text: str) -> bool:
    """Whether the text contains lone surrogates (U+D800 to U+DFFF), which UTF-8 cannot encode.

    Python decodes invalid bytes of file names and sources to U+DC80 to U+DCFF (PEP 383); some
    encodings, such as UTF-7, can produce the others.
    """
    return any("\ud800" <= character <= "\udfff" for character in text)


def escaped(text: str) -> str:
    """The text with NUL characters and lone surrogates written as backslash escapes."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")
