"""Generates the products of the demo catalogue: their names, fields and appearance."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ingest.demo.kinds import KINDS, Kind
from ingest.demo.look import Appearance
from ingest.demo.paint import PATTERNS, Colour, Paint

Reissue = Literal["same file", "new photograph", "same file, other spelling"]

COLOURS: dict[str, Colour] = {
    "red": (0.76, 0.20, 0.18), "navy": (0.13, 0.22, 0.42), "mustard": (0.86, 0.65, 0.20),
    "forest green": (0.17, 0.36, 0.25), "cream": (0.91, 0.87, 0.77), "black": (0.13, 0.13, 0.14),
    "lilac": (0.66, 0.55, 0.76), "terracotta": (0.78, 0.42, 0.28), "sky blue": (0.47, 0.68, 0.84),
    "pink": (0.90, 0.58, 0.64), "teal": (0.10, 0.46, 0.48), "sage": (0.60, 0.69, 0.55),
    "grey": (0.52, 0.54, 0.56), "orange": (0.90, 0.47, 0.14), "white": (0.93, 0.93, 0.92),
    "burgundy": (0.44, 0.10, 0.18),
}  # fmt: skip
TIMBERS: dict[str, Colour] = {
    "natural": (0.86, 0.66, 0.40), "amber": (0.78, 0.43, 0.14), "walnut": (0.42, 0.25, 0.14),
}  # fmt: skip
BRANDS = (
    "Norrby", "Fernhollow", "Casa Lumo", "Ostrel Works", "Pelican & Rye", "Halvard", "Mirabeau",
    "Quillon", "Tern Bay", "Bramwick", "Okari", "Velmora", "Stadt & Wald", "Ébène",
)  # fmt: skip
SERIES = (
    "Aurora", "Brisa", "Café", "Delta", "Élan", "Fjord", "Grove", "Hélène", "Isla", "Juno", "Kite",
    "Lumière", "Mistral", "Nómada", "Oriel", "Piñata", "Quartz", "Rivière", "Sølv", "Tamarind",
    "Umbra", "Vega", "Willow", "Yuzu", "Zéphyr",
)  # fmt: skip
# One of this many products is a new release of an earlier product.
REISSUE_EVERY = 13
REISSUES: tuple[Reissue, ...] = ("same file", "new photograph", "same file, other spelling")


@dataclass(frozen=True, slots=True)
class Item:
    """A product of the demo: its catalogue fields, its appearance, and its original release."""

    sku: str
    kind: Kind
    look: Appearance
    title: str
    brand: str
    colour: str
    year: int
    price: str
    material: str
    pattern: str
    pictures: int
    original: str | None = None
    reissue: Reissue | None = None


def invent(products: int, seed: int) -> list[Item]:
    """The products in order of their sku; the first ones do not depend on how many there are."""
    items: list[Item] = []
    for number in range(products):
        form = np.random.default_rng([seed, number])
        if number % REISSUE_EVERY == REISSUE_EVERY - 1:
            how = REISSUES[number // REISSUE_EVERY % len(REISSUES)]
            items.append(_again(items[number - 7], _sku(number), how, form))
        else:
            items.append(_original(number, form))
    return items


def _sku(number: int) -> str:
    return f"DEMO-{number + 1:04}"


def _original(number: int, form: np.random.Generator) -> Item:
    kind = KINDS[number % len(KINDS)]
    palette = kind.colours or tuple(COLOURS)
    colour, trim = palette[int(form.integers(len(palette)))], _other(form)
    patterned = form.random() < kind.patterned
    pattern = _pick(form, (*PATTERNS, "checked")) if patterned else "plain"
    brand, series = _pick(form, BRANDS), _pick(form, SERIES)
    words = [series, colour, *([pattern] if patterned else []), kind.name]
    main, accent = _paint_of(colour), COLOURS[trim]
    if _contrast(main, accent) < 0.5:
        accent = COLOURS["cream"] if sum(main) < 1.7 else COLOURS["navy"]
    scale = form.uniform(3.5, 8.0)
    paint = Paint(main, accent, pattern, scale, kind.gloss, kind.texture)
    return Item(
        sku=_sku(number),
        kind=kind,
        look=Appearance(paint, accent, int(form.integers(1 << 31))),
        title=f"{brand} {' '.join(words)}",
        brand=brand,
        colour=colour,
        year=int(form.integers(2017, 2025)),
        price=_price(kind, form),
        material=_pick(form, kind.materials),
        pattern=pattern,
        pictures=3 if number % 15 == 5 else 2 if number % 5 == 2 else 1,
    )


def _again(first: Item, sku: str, how: Reissue, form: np.random.Generator) -> Item:
    """The same product in a later year's catalogue."""
    spelt = how == "same file, other spelling"
    return replace(
        first,
        sku=sku,
        title=_respelt(first.title, int(form.integers(3))) if spelt else first.title,
        year=first.year + int(form.integers(1, 4)),
        pictures=1,
        original=first.sku,
        reissue=how,
    )


def _respelt(title: str, way: int) -> str:
    """The same words with other capitals, accents or punctuation."""
    bare = unicodedata.normalize("NFKD", title)
    bare = "".join(letter for letter in bare if not unicodedata.combining(letter))
    words = bare.split()
    return (bare.upper(), f"{words[0]}, {' '.join(words[1:])}.", bare.lower())[way]


def _pick(form: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(form.integers(len(options)))]


def _other(form: np.random.Generator) -> str:
    return _pick(form, tuple(COLOURS))


def _paint_of(colour: str) -> Colour:
    return TIMBERS[colour] if colour in TIMBERS else COLOURS[colour]


def _contrast(a: Colour, b: Colour) -> float:
    return sum(abs(x - y) for x, y in zip(a, b, strict=True))


def _price(kind: Kind, form: np.random.Generator) -> str:
    low, high = kind.prices
    # Log-uniform prices: most products are cheap, a few expensive.
    return f"{round(low * (high / low) ** form.random()) - 0.05:.2f}"
