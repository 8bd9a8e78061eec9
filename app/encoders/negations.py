"""Words that say what a text does not ask for: "not red" is "-red", as is "ohne Rot"."""

from __future__ import annotations

import re

from app.encoders import colour_words

_MAX_COLOUR = 3
"""Words of the name of a colour."""

_NEGATED = re.compile(
    r"(?:^|(?<=\s))(?:not|without|ohne|nicht|keine?|keine[nmrs])\s+(?:in\s+)?"
    r'(?P<unwanted>"[^"]*"|[^\W\d_][^\s"]*(?:\s+[^\W\d_][^\s"]*){0,' + str(_MAX_COLOUR - 1) + "})",
    re.IGNORECASE,
)


def with_minus_signs(text: str) -> str:
    """A text with a minus sign before what it negates: the name of a colour, a phrase in quotes, or
    else one word.

    What has no letter at its beginning is not negated, so that codes stay what they are.
    """
    return _NEGATED.sub(_with_minus, text)


def _with_minus(match: re.Match[str]) -> str:
    unwanted = match["unwanted"]
    if unwanted.startswith('"'):
        return f"-{unwanted}"
    words = unwanted.split()
    named = range(len(words), 1, -1)
    plain = [re.sub(r"\W+$", "", word).casefold() for word in words]
    count = next((n for n in named if colour_words.named(plain[:n])), 1)
    phrase = " ".join(words[:count])
    return " ".join([f'-"{phrase}"' if count > 1 else f"-{phrase}", *words[count:]])
