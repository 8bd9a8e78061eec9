"""Names of colours, as mixtures of the basic ones that are told in pictures' pixels.

Written by hand in English, plain as `word_space.tokens` writes them; German names are those of
`german_words`. The English ones that the lexicon of the fit has are the same mixtures there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.encoders import german_words
from app.images.basic_colours import NAMES
from app.types import Vector, Vectors

ENGLISH = """
red, crimson, scarlet, rust red, bright red: red
orange: orange
yellow, bright yellow, light yellow, pale yellow, lemon yellow: yellow
green, light green, lime green, fluorescent green, bright green, emerald, emerald green: green
forest green, dark green: green
blue, royal blue, cobalt, cobalt blue, bright blue: blue
light blue, sky blue, baby blue, pale blue, powder blue: light blue
navy, navy blue, dark blue, midnight blue, indigo: navy
purple, violet, mauve, plum purple, dark purple: purple
lilac, lavender, light purple: lilac
pink, rose, light pink, dusty pink, blush pink: pink
magenta, fuchsia, hot pink: pink*.7 + purple*.6 + red*.3
brown, light brown: brown
coffee brown, chocolate, dark brown, coffee colour: brown + black*.3
rust, copper, bronze, terracotta: orange*.6 + brown*.7
beige: beige
tan, camel, nude, taupe, skin, mushroom brown, fawn: beige + brown*.5
cream, ivory, off white, ecru, eggshell: white*.7 + beige*.7
khaki, sand: olive*.6 + beige*.7
gold, golden, mustard, ochre: yellow*.7 + brown*.4 + beige*.3
peach, coral, salmon: orange*.6 + pink*.7
white: white
grey, gray, light grey, dark grey, light gray, dark gray, heather grey, grey melange: grey
silver, metallic, steel, gunmetal: grey + white*.3
charcoal, anthracite, graphite: grey*.7 + black*.7
black: black
teal: teal
turquoise, aqua, cyan, aquamarine: teal + light blue*.4
mint, mint green, sea green: teal*.6 + green*.4 + white*.4
burgundy, maroon, wine, wine red, dark red, oxblood: burgundy
olive, sage, army green, olive green, dark olive: olive
"""


def _mixture(text: str) -> tuple[tuple[str, float], ...]:
    parts = (part.strip().partition("*") for part in text.split("+"))
    return tuple((name, float(weight or 1)) for name, _, weight in parts)


def _entries(text: str) -> dict[str, tuple[tuple[str, float], ...]]:
    found: dict[str, tuple[tuple[str, float], ...]] = {}
    for line in text.strip().splitlines():
        names, _, mixture = line.partition(":")
        found |= {name.strip(): _mixture(mixture) for name in names.split(",")}
    return found


_ENGLISH = _entries(ENGLISH)

MIXTURES = _ENGLISH | {
    german: _ENGLISH[english[0]]
    for german, english in german_words.entries(german_words.COLOURS).items()
}
"""Weights of basic colours by name."""


def named(words: Sequence[str]) -> str | None:
    """The colour that words name, as they are written; None if they name none.

    What is only spelt like a colour, or is one in the plural, is mostly another thing: Greek
    yogurt, brownies, roses, and noodles in German ("Nudeln").
    """
    written = " ".join(words)
    return written if written in MIXTURES else None


def basic_name(name: str) -> str | None:
    """The basic colour that a name means most of all; None for what is no colour."""
    mixture = MIXTURES.get(name)
    return None if mixture is None else max(mixture, key=lambda part: part[1])[0]


def colour_row(name: str) -> Vector | None:
    """The weights of the basic colours, (len(NAMES),), float32, in all 1; None for no colour."""
    mixture = MIXTURES.get(name)
    if mixture is None:
        return None
    row = np.zeros(len(NAMES), np.float32)
    for basic, weight in mixture:
        row[NAMES.index(basic)] = weight
    return np.asarray(row / row.sum(), np.float32)


def rows(wanted: Sequence[str], unwanted: Sequence[str]) -> Vectors:
    """The rows of colours that are asked for, and of those that are not, negative: (n, 18)."""
    found = [(colour_row(name), 1) for name in wanted] + [(colour_row(n), -1) for n in unwanted]
    signed = [row * sign for row, sign in found if row is not None]
    return np.stack(signed).astype(np.float32) if signed else np.empty((0, len(NAMES)), np.float32)
