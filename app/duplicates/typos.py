"""Whether two titles differ by one slip of the hand, and which of many titles do."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, combinations

from rapidfuzz.distance import OSA

from app.duplicates.normalization import COLOURS, Identity, Words

SLIP = 0.5
"""What a likely slip weighs of another change of one letter.

Two letters swapped, a letter doubled or a double letter written once are seldom another word; nor
is what nearly spells the product's own brand, category or colour. Any other letter may well make
another name of it, so that takes a word twice as long.
"""


def misspelled(a: Identity, b: Identity, typo: float) -> bool:
    """Whether the words of two titles differ by one slip only, in a word without digits.

    That is one letter, or one space between words. The similarity of the two spellings, 1 -
    weight / letters of the longer one, must reach `typo`; the first letter is never in doubt, and
    neither is which of two colours a word names. Symmetric.
    """
    if _respaced(a.words, b.words, typo) or _respaced(b.words, a.words, typo):
        return True
    if sorted(b.words) in _brandless(a, typo) or sorted(a.words) in _brandless(b, typo):
        return True
    mine, theirs = Counter(a.words), Counter(b.words)
    only_a, only_b = list((mine - theirs).elements()), list((theirs - mine).elements())
    if len(only_a) != 1 or len(only_b) != 1:
        return False
    known = {*a.brand, *a.category, *a.colour}
    return _same_word(only_a[0], only_b[0], known, typo)


def slips(identities: Sequence[Identity], typo: float) -> Iterator[tuple[str, str]]:
    """The keys of pairs that are misspelled forms of each other; a pair may come again.

    The products are of one brand, category, colour and numbers. Not every pair is looked at: those
    a letter apart share all words but one and that one with a letter taken out; those a space or
    the brand apart are found by the words of one of the two.
    """
    whole: dict[Words, list[Identity]] = defaultdict(list)
    shapes: dict[tuple[Words, str], list[Identity]] = defaultdict(list)
    for identity in identities:
        whole[tuple(sorted(identity.words))].append(identity)
        for shape in set(_one_shortened(identity.words)):
            shapes[shape].append(identity)
    pairs = chain.from_iterable(combinations(found, 2) for found in shapes.values())
    found = ((one, other) for one in identities for words in _other_words(one, typo)
             for other in whole.get(words, ()))  # fmt: skip
    for a, b in chain(pairs, found):
        if misspelled(a, b, typo):
            yield a.key, b.key


def _one_shortened(words: Words) -> Iterator[tuple[Words, str]]:
    """All words but one, and what that one is with a letter less or none less."""
    for number, word in enumerate(words):
        others = tuple(sorted(words[:number] + words[number + 1 :]))
        yield from ((others, short) for short in _shortened(word))


def _other_words(identity: Identity, typo: float) -> Iterator[Words]:
    """The words, sorted, if two were written as one, or one were the brand misspelled."""
    yield from (tuple(sorted(joined)) for joined, _ in _joins(identity.words))
    yield from map(tuple, _brandless(identity, typo))


def _brandless(identity: Identity, typo: float) -> list[list[str]]:
    """The words, sorted, without a brand that is misspelled in them; rightly spelled it is none."""
    words, brand = Counter(identity.words), Counter(identity.brand)
    missing = list((brand - words).elements())
    if len(missing) != 1:
        return []
    others = words - brand
    slipped = [word for word in others if _near(word, missing[0], typo, SLIP)]
    return [sorted((others - Counter([word])).elements()) for word in slipped]


def _shortened(word: str) -> Iterable[str]:
    return {word, *(word[:n] + word[n + 1 :] for n in range(1, len(word)))}


def _joins(words: Words) -> Iterator[tuple[Words, str]]:
    """The words with two neighbours written as one, and that one."""
    for n in range(len(words) - 1):
        joined = words[n] + words[n + 1]
        yield (*words[:n], joined, *words[n + 2 :]), joined


def _respaced(parted: Words, joined: Words, typo: float) -> bool:
    if len(parted) != len(joined) + 1:
        return False
    wanted = sorted(joined)
    return any(
        sorted(words) == wanted and 1 - SLIP / len(word) >= typo for words, word in _joins(parted)
    )


def _same_word(a: str, b: str, known: set[str], typo: float) -> bool:
    if a in COLOURS and b in COLOURS:
        return False
    likely = a in known or b in known or _swapped(a, b) or _undoubled(a) == _undoubled(b)
    return _near(a, b, typo, SLIP if likely else 1.0)


def _near(a: str, b: str, typo: float, weight: float) -> bool:
    """Whether one letter sets two spellings apart, and little enough of them."""
    if a[0] != b[0] or 1 - weight / max(len(a), len(b)) < typo:
        return False
    return bool(OSA.distance(a, b, score_cutoff=1) == 1)


def _swapped(a: str, b: str) -> bool:
    return sorted(a) == sorted(b)


def _undoubled(word: str) -> str:
    return "".join(letter for n, letter in enumerate(word) if n == 0 or word[n - 1] != letter)
