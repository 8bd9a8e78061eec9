"""Normalises the words of a product, and computes its identity key from them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

from app.types import Product

VERSION = "1|"
"""Prefix of every key; change it whenever any key would change."""

MAX_KEY = 500
"""Characters of a key before it is cut and hashed: a B-tree holds 2,704 bytes, a character has up
to 4."""

APOSTROPHES = dict.fromkeys(map(ord, "'\u2018\u2019\u201b\u02bc\u02b9`\u00b4\uff07"))
LETTERS = {
    "ø": "o", "æ": "ae", "œ": "oe", "đ": "d", "ð": "d", "ł": "l", "þ": "th", "ħ": "h",
    "\u0131": "i",
}  # fmt: skip
ACCENTS = range(0x0300, 0x0370)
POINT = "\ue000"
"""Placeholder for the decimal point or comma of a number while punctuation is removed."""

JOINING = {"and"}
"""Words that are ignored, as is `&`: `Alder & Pine` equals `Alder Pine`."""

# Irregular plurals, singulars that end like a plural, and two spellings of one word.
IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "feet": "foot", "teeth": "tooth",
    "mice": "mouse", "geese": "goose", "knives": "knife", "scarves": "scarf", "shelves": "shelf",
    "leaves": "leaf", "halves": "half", "wolves": "wolf", "loaves": "loaf", "lens": "lens",
    "canvas": "canvas", "atlas": "atlas", "bias": "bias", "gray": "grey",
}  # fmt: skip


Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Identity:
    """The normalised parts of a product's words that identify it.

    `words` are those of the title in order, without those of the brand, `numbers` (the words with a
    digit, sorted), `years` and `sizes`. `colour` is that of the column, or of the title if the
    column is empty. `key` is '' if the title has no other words.
    """

    brand: Words
    category: Words
    colour: Words
    words: Words
    numbers: Words
    years: Words
    sizes: Words
    key: str


def normalised(text: str) -> Words:
    """The words of a text without case, accents, punctuation and plural, and without `&` and `and`.

    An apostrophe joins (O'Leary becomes oleary); all other punctuation except the decimal point
    separates. Singular and plural have one form, which need not be a word.
    """
    if not text.isascii():
        text = text.replace("™", " ").replace("℠", " ")
    text = DECIMAL.sub(POINT, text.translate(APOSTROPHES))
    words = _folded(text).translate(_PLAIN).split()
    return tuple(word for word in map(_singular, words) if word not in JOINING)


def identity(product: Product) -> Identity:
    """The identity of a product."""
    return _identity(
        product.title, product.brand or "", product.category or "", product.colour or "",
        product.year,
    )  # fmt: skip


@lru_cache(maxsize=4096)
def _identity(
    title: str, brand_name: str, category_name: str, colour_name: str, year: int | None
) -> Identity:
    """Cached, because a page that is short is searched again among more products, and because one
    spelling may come a thousand times."""
    title_words = _spelled(normalised(title), _named(category_name), keep=True)
    title_words = _spelled(title_words, _named(brand_name), keep=False)
    words, years, sizes = _split_title(title_words, year)
    brand, category, colour = map(_sorted_name, (brand_name, category_name, colour_name))
    if not colour:
        colour = tuple(sorted(COLOURS.intersection(words)))
    letters, numbers = words, Words()
    if not "".join(words).isalpha():
        numbers = tuple(sorted(filter(_has_digit, words)))
        letters = tuple(word for word in words if not _has_digit(word))
    key = _key(brand, category, colour, (*sorted(letters), *numbers)) if words else ""
    return Identity(brand, category, colour, letters, numbers, years, sizes, key)


class Identities(Mapping[str, Identity]):
    """The identities of products by sku, each computed when it is first asked for.

    Most products of a page differ from all others in brand, category or colour, so that their
    titles need not be read.
    """

    def __init__(self, products: Mapping[str, Product]) -> None:
        self._products = products
        self._known: dict[str, Identity] = {}

    def __getitem__(self, sku: str) -> Identity:
        found = self._known.get(sku)
        if found is None:
            found = self._known[sku] = identity(self._products[sku])
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._products)

    def __len__(self) -> int:
        return len(self._products)

    def may_agree(self) -> Iterator[list[str]]:
        """Skus, two or more at a time, among which words may agree; of other products none do.

        Words agree only of products of one brand, category and colour. A colour that is missing is
        read from the title, and may be any.
        """
        by_kind: dict[str, list[tuple[str, str]]] = {}
        for sku, product in self._products.items():
            kind, colour = _names(product.brand or "", product.category or "", product.colour or "")
            by_kind.setdefault(kind, []).append((colour, sku))
        for members in by_kind.values():
            if len(members) > 1:
                yield from _of_one_colour(members)


def _of_one_colour(members: Iterable[tuple[str, str]]) -> Iterator[list[str]]:
    """Skus, two or more at a time, of one colour, of which '' may be any; the pairs are colour and
    sku."""
    colours: dict[str, list[str]] = {}
    for colour, sku in members:
        colours.setdefault(colour, []).append(sku)
    groups = [[*chain(*colours.values())]] if "" in colours else [*colours.values()]
    yield from (group for group in groups if len(group) > 1)


def identity_key(product: Product) -> str:
    """A text that is equal for two products if and only if their words differ at most in year, size
    and notation.

    It begins with VERSION, has at most about 600 characters, and is '' if the title has no word
    except the brand, a year and a size.
    """
    return identity(product).key


_named = lru_cache(maxsize=1024)(normalised)
"""Cached for brands, categories and colours, of which there are few; titles are not cached."""


@lru_cache(maxsize=4096)
def _names(brand: str, category: str, colour: str) -> tuple[str, str]:
    """Brand and category, and the colour, as texts that are equal if the words are, in any
    order."""
    own, kind, shown = (" ".join(_sorted_name(name)) for name in (brand, category, colour))
    return f"{own}|{kind}", shown


@lru_cache(maxsize=1024)
def _sorted_name(name: str) -> Words:
    """The words of a brand, category or colour, sorted."""
    return tuple(sorted(_named(name)))


class _Plain(dict[int, str]):
    """Table for str.translate: keeps letters, digits and combining marks; all else is a space."""

    def __missing__(self, code: int) -> str:
        letter = chr(code)
        kept = letter.isalnum() or unicodedata.category(letter).startswith("M")
        self[code] = "" if code in ACCENTS else LETTERS.get(letter, letter if kept else " ")
        return self[code]


_PLAIN = _Plain({ord(POINT): "."})
DECIMAL = re.compile(r"(?<=\d)[.,](?=\d)")
E_AFTER = ("se", "xe", "ze", "che", "she", "oe")


def _folded(text: str) -> str:
    if text.isascii():
        return text.lower()
    # Once more after folding: a dotted capital I becomes i and a mark, a mathematical A a capital.
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())


@lru_cache(maxsize=65_536)
def _singular(word: str) -> str:
    """One form for singular and plural: without s, and without the rest of -es and -ies."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if len(word) <= 3 or not (word.isascii() and word.isalpha()):
        return word
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    if len(word) > 3 and word.endswith("ie"):
        word = word[:-2] + "y"
    elif len(word) > 3 and word.endswith(E_AFTER):
        word = word[:-1]
    return IRREGULAR.get(word, word)


def _spelled(title: Words, name: Words, *, keep: bool) -> Words:
    """The title with the words of a name removed, or with `keep`, spelled as in the name.

    Also finds a name with other spaces: `O Leary` and `OLeary`, `tshirt` and `t shirt`.
    """
    if all(name.count(word) <= title.count(word) for word in name):
        return title if keep else _without(title, name)
    letters = "".join(name)
    for first in range(len(title)):
        run, end = "", first
        while end < len(title) and len(run) < len(letters):
            run, end = run + title[end], end + 1
        if run == letters:
            return (*title[:first], *(name if keep else ()), *title[end:])
    return title


def _without(title: Words, name: Words) -> Words:
    left = list(title)
    for word in name:
        left.remove(word)
    return tuple(left)


def _split_title(title: Words, year: int | None) -> tuple[Words, Words, Words]:
    """The identifying words of a title, its years, and its sizes."""
    words: list[str] = []
    years = set() if year is None else {str(year)}
    sizes: list[str] = []
    before = ""
    for place, word in enumerate(title):
        if len(word) == 4 and word.isdecimal() and _is_year(title, place, year):
            years.add(word)
            if year is None:
                words.append(SOME_YEAR)
            before = ""
            continue
        if before in SIZE_WORDS and (NUMBER.fullmatch(word) or word in SIZES):
            words = words[:-1] if words[-1:] == [before] else words
            sizes.append(word)
        elif word in SIZES and not NUMBER.fullmatch(before) and _may_be_size(title, place):
            sizes.append(word)
        else:
            words.append(word)
        before = word
    return tuple(words), tuple(sorted(years)), tuple(sorted(sizes))


def _is_year(title: Words, place: int, year: int | None) -> bool:
    """Whether four digits of a title are the product's year; if the column is empty, those from
    1950 to 2039 without a unit after them count as one."""
    if year is not None:
        return int(title[place]) == year
    after = title[place + 1] if place + 1 < len(title) else ""
    return 1950 <= int(title[place]) <= 2039 and after not in UNITS


def _may_be_size(title: Words, place: int) -> bool:
    """Whether a size is plausible here: a single letter only at the end, and not of a model."""
    if len(title[place]) > 1:
        return True
    after = title[place + 1 :]
    named = place > 0 and title[place - 1] in MODEL_WORDS
    return not named and all(
        word in SIZES or (len(word) == 4 and word.isdecimal()) for word in after
    )


def _has_digit(word: str) -> bool:
    return not word.isalpha() and any(letter.isdigit() for letter in word)


def _key(*parts: Iterable[str]) -> str:
    key = VERSION + "|".join(map(" ".join, parts))
    if len(key) <= MAX_KEY:
        return key
    return key[:MAX_KEY] + "#" + hashlib.sha256(key.encode()).hexdigest()


NUMBER = re.compile(r"\d{1,3}(\.\d+)?")
"""A size in digits. A single letter after a number is a unit: `5 l`."""

SOME_YEAR = "#year"
"""Replaces a year in the title of a product without one: `Peugeot 2008` is not `Peugeot`."""

UNITS = frozenset(
    normalised("w watt watts v volt mm cm m ml l g kg mah dpi hz k rpm lm lumen px pcs pieces")
)
MODEL_WORDS = frozenset(normalised("model type version series class mark"))
SIZE_WORDS = frozenset(normalised("size sz eu eur uk us"))
SIZES = frozenset(
    normalised("xxs xs s m l xl xxl xxxl xxxxl 2xl 3xl 4xl 5xl 6xl small medium large")
)
COLOURS = frozenset(
    normalised(
        "beige black blue bronze brown burgundy charcoal copper coral cream cyan gold green grey"
        " indigo ivory khaki lilac magenta maroon mint mustard navy olive orange pink purple red"
        " rose silver tan taupe teal turquoise violet white yellow"
    )
)
