"""The text side of the embedded encoder: words to directions in the space of its pictures.

It is an addition to a version of the encoder: the vectors of pictures, and so the model and its
fingerprint, stay as they are. It needs numpy only and loads neither torch nor OpenVINO. Made by
`app/encoders/word_fit`; the reasons and the figures are in
`docs/decisions/0050-words-without-a-download.md`.
"""

from __future__ import annotations

import json
import re
import unicodedata
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.encoders import colour_words, german_words
from app.encoders.base import EMBEDDED, split_variant
from app.encoders.embedded_versions import NEWEST, version_of
from app.encoders.negations import with_minus_signs
from app.types import Model, Vector, Vectors

FILES = {"2": Path(__file__).parent / "pair_words.npz"}
"""The text side of each version of the encoder that has one."""

MIN_CONFIDENCE = 0.5
"""A text of which less is known has no vector."""

MIN_LIKENESS, SURE_LIKENESS = 0.6, 0.7
"""Cosine of the character n-grams from which on an unknown word counts as one that is spelt like
it; below the second it is trusted less, in proportion."""

MAX_PHRASE = 4
"""Words in a row that may be one name."""

GRAM_LENGTHS = (2, 3, 4)

NEUTRAL = german_words.FUNCTION_WORDS | frozenset(
    re.findall(
        r"\w+",
        "a an and the of for in on with by from to or my some any new style fashion product item i"
        " am looking searching want need buy shop made size colour color coloured colored pattern"
        " man men mans mens woman women womans womens male female lady ladies ladys girl girls boy"
        " boys kid kids child children baby babies unisex adult",
    )
)
"""Words that no picture shows, or hardly. They neither count nor lower the confidence."""

_WANTED = re.compile(r'(?:^|(?<=\s))-(?P<unwanted>"[^"]*"|[^\s"]+)')


@dataclass(frozen=True, slots=True)
class WordReading:
    """What the text side makes of a text.

    `vector` is float32 (dim,) at unit length, zeros where nothing is known; `confidence` (0 to 1)
    is the share of the words that are known; `unknown` are the words that are not. `colours` are
    the rows of `colour_words.rows` for the colours that it names, (n, 18): those in a picture's
    pixels tell more than its vector does. `others` is the text without them.
    """

    vector: Vector
    confidence: float
    unknown: tuple[str, ...] = ()
    colours: Vectors = field(default_factory=lambda: colour_words.rows((), ()))
    others: str = ""


class WordSpace:
    """Directions of names in the space of pictures. Immutable, so without locks.

    `directions` (n, dim), float, have one length for the same spread of similarities; `rows` and
    `trust` (0 to 1) belong to `phrases`, names as `tokens` writes them, joined by spaces.
    """

    def __init__(
        self,
        directions: NDArray[Any],
        phrases: Sequence[str],
        rows: NDArray[Any],
        trust: NDArray[Any],
        grams: GramIndex,
        provenance: Mapping[str, Any],
    ) -> None:
        self._directions = directions
        self._places = {phrase: place for place, phrase in enumerate(phrases)}
        self._phrases = tuple(phrases)
        self._rows, self._trust, self._grams = rows, trust, grams
        self.provenance = provenance

    @classmethod
    def load(cls, path: Path) -> WordSpace:
        """Read the file that `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(
                file["directions"],
                file["phrases"].tobytes().decode().split("\n"),
                file["rows"],
                file["trust"],
                GramIndex(file["hashes"], file["owners"], file["sizes"]),
                json.loads(file["provenance"].tobytes()),
            )

    def save(self, path: Path) -> None:
        """Write the file; the same contents give the same bytes."""
        np.savez(
            path,
            directions=self._directions.astype(np.float16),
            phrases=np.frombuffer("\n".join(self._places).encode(), np.uint8),
            rows=self._rows.astype(np.uint16),
            trust=self._trust.astype(np.float16),
            hashes=self._grams.hashes,
            owners=self._grams.owners,
            sizes=self._grams.sizes,
            provenance=np.frombuffer(json.dumps(self.provenance).encode(), np.uint8),
        )

    @property
    def phrases(self) -> Sequence[str]:
        """All names."""
        return self._phrases

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._directions.shape[1])

    def has_name(self, word: str) -> bool:
        """Whether a word, as `tokens` writes it, has a direction of its own, or no picture shows
        it."""
        return word in NEUTRAL or self._place([word]) is not None

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Texts to float32 rows (n, dim), in order: at unit length, or zeros below
        MIN_CONFIDENCE."""
        found = [self.read(text) for text in texts]
        rows = [each.vector * (each.confidence >= MIN_CONFIDENCE) for each in found]
        return np.stack(rows) if rows else np.empty((0, self.dim), np.float32)

    def read(self, text: str) -> WordReading:
        """The direction of a text; words after a minus sign are subtracted, as are negated ones."""
        text = with_minus_signs(text)
        wanted = german_words.in_context(tokens(_WANTED.sub(" ", text)))
        unwanted = [tokens(match["unwanted"]) for match in _WANTED.finditer(text)]
        total = np.zeros(self.dim, np.float64)
        known, counted = 0.0, 0
        unknown: list[str] = []
        names: list[str] = []
        others: list[str] = []
        for words, place, trust in self._parts(wanted):
            name = None if place is None else colour_words.named(words)
            others += words if name is None else ()
            counted += len(words)
            known += trust * len(words)
            if place is None:
                unknown += words
            else:
                total += trust * self._direction(place)
                names += filter(None, [name])
        others += [f"-{match['unwanted']}" for match in _WANTED.finditer(text)]
        unwanted_names: list[str] = []
        for words, place, trust in (part for each in unwanted for part in self._parts(each)):
            if place is not None and known:
                total -= trust * self._direction(place)
                unwanted_names += filter(None, [colour_words.named(words)])
        length = float(np.linalg.norm(total))
        vector = (total / length if length else total).astype(np.float32)
        colours = colour_words.rows(names, unwanted_names)
        confidence = known / counted if counted else 0.0
        return WordReading(vector, confidence, tuple(unknown), colours, " ".join(others))

    def _direction(self, place: int) -> NDArray[np.float64]:
        return np.asarray(self._directions[self._rows[place]], np.float64)

    def _parts(self, words: Sequence[str]) -> Iterator[tuple[Sequence[str], int | None, float]]:
        """The words, the longest names first, each with the place of its name (None: unknown) and
        how far that can be trusted."""
        start = 0
        while start < len(words):
            for end in range(min(len(words), start + MAX_PHRASE), start, -1):
                place = self._place(words[start:end])
                if place is not None:
                    yield words[start:end], place, float(self._trust[place])
                    break
            else:
                end = start + 1
                if words[start] not in NEUTRAL:
                    yield words[start:end], *self._spelt_like(words[start])
            start = end

    def _place(self, words: Sequence[str]) -> int | None:
        """The place of a name, as it is written, in the singular, as a colour's other name, or in
        English."""
        written = " ".join(words)
        found = self._places.get(written)
        if found is None:
            found = self._places.get(" ".join([*words[:-1], singular(words[-1])]))
        if found is None:
            found = self._places.get(colour_words.basic_name(written) or "")
        if found is None:
            english = (self._places.get(each) for each in german_words.english(written))
            found = next((each for each in english if each is not None), None)
        return found

    def _spelt_like(self, word: str) -> tuple[int | None, float]:
        """The place of the name that is spelt most like an unknown word, and its trust."""
        if len(word) < 4 or any(letter.isdigit() for letter in word):
            return None, 0.0
        place, likeness = self._grams.nearest(word)
        if likeness < MIN_LIKENESS:
            return None, 0.0
        return place, float(self._trust[place]) * min(1.0, likeness / SURE_LIKENESS)


@dataclass(frozen=True, slots=True)
class GramIndex:
    """Words of one token by their character n-grams, as sets of hashes compared by cosine.

    `hashes` are sorted; `owners` are the places of the words that have them, and `sizes` the number
    of n-grams of each place.
    """

    hashes: NDArray[np.uint32]
    owners: NDArray[np.uint16]
    sizes: NDArray[np.uint16]

    @classmethod
    def of(cls, phrases: Sequence[str]) -> GramIndex:
        """The index of those of these names that are one word."""
        grams = [grams_of(phrase) if " " not in phrase else [] for phrase in phrases]
        sizes = np.array([len(each) for each in grams], np.uint16)
        owners = np.repeat(np.arange(len(phrases), dtype=np.uint16), sizes)
        hashes = np.concatenate([np.array(each, np.uint32) for each in grams])
        order = np.argsort(hashes, kind="stable")
        return cls(hashes[order], owners[order], sizes)

    def nearest(self, word: str) -> tuple[int, float]:
        """The place of the most similar word, and the cosine of both sets (0 to 1)."""
        grams = np.array(grams_of(word), np.uint32)
        first, last = (np.searchsorted(self.hashes, grams, side) for side in ("left", "right"))
        common = np.zeros(len(self.sizes))
        for start, end in zip(first, last, strict=True):
            common[self.owners[start:end]] += 1
        cosines = common / np.sqrt(np.maximum(self.sizes, 1) * float(len(grams)))
        best = int(cosines.argmax())
        return best, float(cosines[best])


def grams_of(word: str) -> list[int]:
    """Hashes of the n-grams of a word with its ends marked, each once."""
    marked = f"<{word}>"
    return sorted(
        {
            zlib.crc32(marked[start : start + length].encode())
            for length in GRAM_LENGTHS
            for start in range(len(marked) - length + 1)
        }
    )


def tokens(text: str) -> list[str]:
    """The words of a text: lower case, without accents and punctuation."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(each for each in decomposed if not unicodedata.combining(each))
    return re.findall(r"[^\W_]+", re.sub(r"['\u2019]", "", plain))


def singular(word: str) -> str:
    """A word without the ending of an English plural."""
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if word.endswith(("sses", "shes", "ches", "xes", "oes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def reads_words(version: str) -> bool:
    """Whether a version of the embedded encoder has a text side."""
    return version in FILES


@cache
def word_space(version: str) -> WordSpace:
    """The text side of a version that `reads_words`, loaded once per process."""
    return WordSpace.load(FILES[version])


def newest() -> WordSpace:
    """The text side of the newest version, which reads the words of other models too."""
    return word_space(NEWEST)


def colours_asked(text: str) -> tuple[Vectors, str]:
    """The colours that a text names, as `WordReading.colours`, and the text without those it wants.

    None where the text side has no idea of the text. For models whose words this text side reads.
    """
    reading = newest().read(text)
    if reading.confidence < MIN_CONFIDENCE:
        return colour_words.rows((), ()), text
    return reading.colours, reading.others


def of_model(model: Model) -> WordSpace | None:
    """The text side for the pictures of a recorded model; None if it has none of this package."""
    if split_variant(model.name)[0] != EMBEDDED:
        return None
    version = version_of(model.revision)
    space = word_space(version) if reads_words(version) else None
    return space if space is not None and space.dim == model.dim else None
