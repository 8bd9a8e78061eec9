"""The vocabulary of the small CLIP models: single characters."""

from __future__ import annotations

END = "<|endoftext|>"
START = "<|startoftext|>"


def vocabulary() -> dict[str, int]:
    """Each printable ASCII character, inside a word and at its end; the two special tokens are
    last."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), START, END]
    return {token: number for number, token in enumerate(tokens)}
