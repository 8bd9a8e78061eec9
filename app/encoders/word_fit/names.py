"""Names and what they mean to the network: WordNet's nouns, and a lexicon of goods."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from app.encoders.word_space import tokens

LEXICON = Path(__file__).parent / "lexicon.txt"

SENSES = 4
"""Of a noun's senses in WordNet, the first that may be meant: the last ones are rare."""

MOST_CLASSES = 130
MOST_CLASSES_ABOVE = 25
"""Most classes below a noun itself, and below its hypernym: "artifact" says nothing."""

HYPERNYM_TRUST, VAGUE_TRUST, VAGUE_FROM = 0.6, 0.7, 40
"""How far a noun is known by its hypernym, and one with VAGUE_FROM classes or more below it."""

PHYSICAL, PERSON = "00001930", "00007846"

Mixture = Mapping[str, float]
"""Weights of what a name is made of: "class N", "@kind" or "#look"."""


@dataclass(frozen=True, slots=True)
class Name:
    """What a name is made of, and how far that can be trusted (0 to 1).

    `own` is the learned kind that has this name: where it was learned, no other learned kind is
    part of the name.
    """

    mixture: Mixture
    trust: float = 1.0
    own: str = ""


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes of the network in their order: WordNet's offset of each, and its names."""

    offsets: Sequence[str]
    names: Sequence[Sequence[str]]

    def named(self, name: str) -> list[int]:
        """The classes with this name: those that have it first, and of these the shortest."""
        having = [place for place, names in enumerate(self.names) if name in names]
        first = [place for place in having if self.names[place][0] == name] or having
        least = min((len(self.names[place]) for place in first), default=0)
        return [place for place in first if len(self.names[place]) == least]


@dataclass(frozen=True, slots=True)
class WordNet:
    """WordNet's nouns: lemmas and hypernyms by offset, and the offsets of each lemma's senses."""

    lemmas: Mapping[str, Sequence[str]]
    hypernyms: Mapping[str, Sequence[str]]
    senses: Mapping[str, Sequence[str]]
    below: dict[str, set[int]] = field(default_factory=dict)
    """The classes that a noun stands for, itself and those below it, by offset."""
    called: dict[str, set[int]] = field(default_factory=dict)
    """The classes that have a name as their first one."""

    def above(self, offset: str) -> Iterator[str]:
        """A noun and everything that it is."""
        yield offset
        for each in self.hypernyms[offset]:
            yield from self.above(each)

    def place(self, classes: Classes) -> None:
        """Note the classes below every noun, and what they are called."""
        for number, offset in enumerate(classes.offsets):
            self.called.setdefault(classes.names[number][0], set()).add(number)
            for each in self.above(offset):
                self.below.setdefault(each, set()).add(number)

    def name(self, lemma: str) -> Name | None:
        """What a lemma means: the class that is called so, which the network was taught under this
        name, else the best of its first senses that is a thing."""
        if lemma in self.called:
            return Name({f"class {number}": 1.0 for number in sorted(self.called[lemma])})
        found = [
            (depth + 0.5 * rank, depth, classes)
            for rank, offset in enumerate(self.senses[lemma][:SENSES])
            for depth, classes in self._classes(offset)
        ]
        if not found:
            return None
        _, depth, classes = min(found, key=lambda each: each[:2])
        trust = VAGUE_TRUST if len(classes) >= VAGUE_FROM else 1.0
        return Name(
            {f"class {number}": 1.0 for number in sorted(classes)},
            HYPERNYM_TRUST if depth else trust,
        )

    def _classes(self, offset: str) -> Iterator[tuple[int, set[int]]]:
        """The classes of one sense, with 0 for its own and 1 for those of its hypernyms."""
        above = set(self.above(offset))
        if PHYSICAL not in above or PERSON in above:
            return
        own = self.below.get(offset, set())
        if own and len(own) <= MOST_CLASSES:
            yield 0, own
        for each in () if own else self.hypernyms[offset]:
            if 0 < len(self.below.get(each, ())) <= MOST_CLASSES_ABOVE:
                yield 1, self.below[each]


def read_wordnet(folder: Path) -> WordNet:
    """WordNet's files `data.noun` and `index.noun`, wherever they are below a folder."""
    lemmas, hypernyms, senses = {}, {}, {}
    for line in _lines(next(folder.rglob("wordnet-3.0/data.noun"))):
        fields = line.partition(" | ")[0].split()
        count = int(fields[3], 16)
        lemmas[fields[0]] = [_plain(each) for each in fields[4 : 4 + 2 * count : 2]]
        pointers = fields[5 + 2 * count :]
        kinds, offsets = pointers[::4], pointers[1::4]
        hypernyms[fields[0]] = [
            offset for kind, offset in zip(kinds, offsets, strict=False) if kind in ("@", "@i")
        ]
    for line in _lines(next(folder.rglob("wordnet-3.0/index.noun"))):
        fields = line.split()
        senses[_plain(fields[0])] = fields[-int(fields[2]) :]
    return WordNet(lemmas, hypernyms, senses)


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file of WordNet without its licence, which is indented."""
    with path.open(encoding="ascii") as file:
        yield from (line for line in file if not line.startswith("  "))


def _plain(lemma: str) -> str:
    return lemma.replace("_", " ").lower()


def read_classes(folder: Path, wordnet: WordNet) -> Classes:
    """The classes in the order of the networks, which is that of timm's list."""
    path = next(folder.rglob("imagenet_synsets.txt"))
    offsets = [line[1:] for line in path.read_text(encoding="ascii").split()]
    return Classes(offsets, [wordnet.lemmas[offset] for offset in offsets])


def read_lexicon(classes: Classes, lines: Iterable[str] | None = None) -> dict[str, Name]:
    """The names of the lexicon. Raises ValueError for a class that the network does not have."""
    if lines is None:
        lines = LEXICON.read_text(encoding="utf-8").splitlines()
    found: dict[str, Name] = {}
    for line in lines:
        names, colon, mixture = line.partition(":")
        if colon and not line.startswith("# "):
            made = Name(_mixture(mixture, classes))
            found |= {" ".join(tokens(name)): made for name in names.split(",")}
    return found


def _mixture(text: str, classes: Classes) -> Mixture:
    weights: dict[str, float] = {}
    for part in re.split(r"\s\+\s", text.strip()):
        name, _, weight = part.partition("*")
        for source in _sources(name.strip(), classes):
            weights[source] = float(weight or 1)
    return weights


def _sources(name: str, classes: Classes) -> list[str]:
    if name.startswith(("@", "#")):
        return [name]
    numbers = classes.named(name)
    if not numbers:
        raise ValueError(f"{name!r} in {LEXICON} is no class of ImageNet.")
    return [f"class {number}" for number in numbers]


def all_names(
    wordnet: WordNet, lexicon: Mapping[str, Name], kinds: Iterable[str], looks: Iterable[str]
) -> dict[str, Name]:
    """Every name: looks, the lexicon's, learned kinds with what WordNet knows, WordNet's others."""
    names = {f"{look}": Name({f"#{look}": 1.0}) for look in looks} | dict(lexicon)
    for kind in kinds:
        known = wordnet.name(kind) if kind in wordnet.senses else None
        name = names.get(kind) or Name({**(known.mixture if known else {}), f"@{kind}": 1.0})
        names[kind] = replace(name, own=kind if f"@{kind}" in name.mixture else "")
    for lemma in sorted(wordnet.senses):
        key = " ".join(tokens(lemma))
        if key and key not in names and (found := wordnet.name(lemma)):
            names[key] = found
    return names
