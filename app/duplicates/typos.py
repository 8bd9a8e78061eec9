"""Detects titles that differ by one typing error, in pairs and in large sets."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, combinations

from rapidfuzz import process
from rapidfuzz.distance import OSA

from app.duplicates.normalization import COLOURS, Identity, Words

LIKELY_TYPO_WEIGHT = 0.5
"""Weight of a likely typing error; any other change of one letter weighs 1.

Likely are two letters swapped, a letter doubled, a double letter written once, and a near spelling
of the product's own brand, category or colour: these seldom give another word. Any other change may
give another name, so the word must be twice as long.
"""


FEW = 4
"""Titles up to which all pairs are compared: finding the likely ones takes longer."""

MAX_WORDS = 40
"""Longer titles are not compared for typing errors."""


class PairBudget:
    """How many likely pairs of spellings may still be compared; None is unlimited."""

    def __init__(self, pairs: int | None = None) -> None:
        self._left = pairs
        self.exceeded = False

    def take(self) -> bool:
        """Use one up; False if none is left."""
        if self._left == 0:
            self.exceeded = True
            return False
        if self._left is not None:
            self._left -= 1
        return True


def spelling_errors(a: str, b: str, most: int) -> int:
    """Letters missing, added, replaced, or swapped with the next (optimal string alignment); more
    than `most` are given as `most` + 1."""
    return OSA.distance(a, b, score_cutoff=most)


def nearest_spellings(
    value: str, values: Sequence[str], *, most: int, min_likeness: float
) -> tuple[str, ...]:
    """Up to `most` of the values that are spelt most like one, without case, the nearest first.

    `min_likeness` is the least share (0 to 1) of letters without an error.
    """
    nearest = process.extract(
        value, values, scorer=OSA.normalized_similarity, processor=str.lower, limit=most,
        score_cutoff=min_likeness,
    )  # fmt: skip
    return tuple(each for each, _, _ in nearest)


def differ_by_typo(a: Identity, b: Identity, min_similarity: float) -> bool:
    """Whether the words of two titles differ by exactly one typing error, in a word without digits.

    An error is one letter, or one space between words. The similarity of the two spellings, 1 -
    weight / letters of the longer one, must reach `min_similarity` (0 to 1). The first letters must
    agree, and two colours are never spellings of each other. Never of a title that is too long.
    Symmetric.
    """
    if is_too_long(a) or is_too_long(b):
        return False
    # Of two spellings one word each is in one title only; joined words are three, a brand its own.
    if len({*a.words} ^ {*b.words}) > max(3, len(a.brand)):
        return False
    if _respaced(a.words, b.words, min_similarity) or _respaced(b.words, a.words, min_similarity):
        return True
    brandless_a, brandless_b = _brandless(a, min_similarity), _brandless(b, min_similarity)
    if sorted(b.words) in brandless_a or sorted(a.words) in brandless_b:
        return True
    if len(a.words) != len(b.words):
        return False  # one of them has more words that the other lacks
    mine, theirs = Counter(a.words), Counter(b.words)
    only_a, only_b = list((mine - theirs).elements()), list((theirs - mine).elements())
    if len(only_a) != 1 or len(only_b) != 1:
        return False
    own_names = {*a.brand, *a.category, *a.colour}
    return _same_word(only_a[0], only_b[0], own_names, min_similarity)


def is_too_long(identity: Identity) -> bool:
    """Whether the title has more than MAX_WORDS words, so that typing errors are not looked for."""
    return len(identity.words) > MAX_WORDS


def typo_pairs(
    identities: Sequence[Identity], min_similarity: float, budget: PairBudget
) -> Iterator[tuple[str, str]]:
    """The keys of pairs that differ by a typing error; a pair may be repeated.

    All identities share brand, category, colour and numbers. Only likely pairs are compared, as far
    as the budget goes. Titles that differ by a letter have the same words except one, and that one
    is the same in both after at most one letter is removed from each. Titles that differ by a space
    or by the brand are found by looking up the variants of one among the words of the others.
    """
    identities = [each for each in identities if not is_too_long(each)]
    if len(identities) <= FEW:
        yield from _typos(combinations(identities, 2), min_similarity, budget)
        return
    by_words: dict[Words, list[Identity]] = defaultdict(list)
    by_shortened: dict[tuple[int, str], list[Identity]] = defaultdict(list)
    for identity in identities:
        by_words[tuple(sorted(identity.words))].append(identity)
        for shortened in dict.fromkeys(_one_shortened(identity.words)):
            by_shortened[shortened].append(identity)
    pairs_by_letter = chain.from_iterable(
        combinations(sharing, 2) for sharing in by_shortened.values()
    )
    pairs_by_variant = (
        (one, other)
        for one in identities
        for words in _other_words(one, min_similarity)
        for other in by_words.get(words, ())
    )
    yield from _typos(chain(pairs_by_letter, pairs_by_variant), min_similarity, budget)


def _typos(
    pairs: Iterable[tuple[Identity, Identity]], min_similarity: float, budget: PairBudget
) -> Iterator[tuple[str, str]]:
    """The keys of those pairs that differ by a typing error; of equal keys none do."""
    for a, b in pairs:
        if a.key == b.key:
            continue
        if not budget.take():
            return
        if differ_by_typo(a, b, min_similarity):
            yield a.key, b.key


def _one_shortened(words: Words) -> Iterator[tuple[int, str]]:
    """All words but one, as a sum of hashes, with that one, unchanged and with one letter removed.

    Other words may have the same sum; the pair is compared anyway.
    """
    total = sum(map(hash, words))
    for word in words:
        others = total - hash(word)
        yield from ((others, short) for short in _shortened(word))


def _other_words(identity: Identity, min_similarity: float) -> Iterator[Words]:
    """Variants of the words, sorted: with two neighbours joined, or without a misspelled brand."""
    yield from (tuple(sorted(joined)) for joined, _ in _joins(identity.words))
    yield from map(tuple, _brandless(identity, min_similarity))


def _brandless(identity: Identity, min_similarity: float) -> list[list[str]]:
    """The words, sorted, without a misspelled brand; empty if the brand is spelled right."""
    near = LIKELY_TYPO_WEIGHT
    if not any(
        _near(word, name, min_similarity, near)
        for name in identity.brand
        for word in identity.words
    ):
        return []
    words, brand = Counter(identity.words), Counter(identity.brand)
    missing = list((brand - words).elements())
    if len(missing) != 1:
        return []
    others = words - brand
    misspelled_brands = [word for word in others if _near(word, missing[0], min_similarity, near)]
    return [sorted((others - Counter([word])).elements()) for word in misspelled_brands]


def _shortened(word: str) -> Iterable[str]:
    return {word, *(word[:n] + word[n + 1 :] for n in range(1, len(word)))}


def _joins(words: Words) -> Iterator[tuple[Words, str]]:
    """The words with two neighbours joined, and the joined word."""
    for n in range(len(words) - 1):
        joined = words[n] + words[n + 1]
        yield (*words[:n], joined, *words[n + 2 :]), joined


def _respaced(split_words: Words, joined: Words, min_similarity: float) -> bool:
    if len(split_words) != len(joined) + 1:
        return False
    target = sorted(joined)
    return any(
        sorted(words) == target and 1 - LIKELY_TYPO_WEIGHT / len(word) >= min_similarity
        for words, word in _joins(split_words)
    )


def _same_word(a: str, b: str, own_names: set[str], min_similarity: float) -> bool:
    if a in COLOURS and b in COLOURS:
        return False
    likely = a in own_names or b in own_names or _swapped(a, b) or _undoubled(a) == _undoubled(b)
    return _near(a, b, min_similarity, LIKELY_TYPO_WEIGHT if likely else 1.0)


def _near(a: str, b: str, min_similarity: float, weight: float) -> bool:
    """Whether two spellings differ by one letter and are similar enough."""
    if a[0] != b[0] or 1 - weight / max(len(a), len(b)) < min_similarity:
        return False
    return bool(OSA.distance(a, b, score_cutoff=1) == 1)


def _swapped(a: str, b: str) -> bool:
    return sorted(a) == sorted(b)


def _undoubled(word: str) -> str:
    return "".join(letter for n, letter in enumerate(word) if n == 0 or word[n - 1] != letter)
