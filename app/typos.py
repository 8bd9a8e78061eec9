"""Whether two titles differ by one slip of the hand, and which of many titles do."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

from rapidfuzz.distance import OSA

from app.identity import COLOURS, Identity, Words

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
    mine, theirs = Counter(a.words), Counter(b.words)
    only_a, only_b = list((mine - theirs).elements()), list((theirs - mine).elements())
    if len(only_a) + len(only_b) == 1:
        # The brand is left out of the words, unless it is misspelled.
        return any(_near(word, name, typo, SLIP) for word in only_a + only_b for name in a.brand)
    if len(only_a) != 1 or len(only_b) != 1:
        return False
    known = {*a.brand, *a.category, *a.colour}
    return _same_word(only_a[0], only_b[0], known, typo)


class Neighbours:
    """Finds, among products of one brand, category, colour and numbers, those a slip apart.

    Products a slip apart share a shape: their words but one, with a letter taken out of that one.
    """

    def __init__(self, identities: Sequence[Identity]) -> None:
        self._shapes: dict[tuple[str, ...], list[Identity]] = defaultdict(list)
        if len(identities) > 1:
            for identity in identities:
                for shape in set(_shapes(identity)):
                    self._shapes[shape].append(identity)

    def pairs(self, typo: float) -> Iterator[tuple[str, str]]:
        """The keys of pairs that are a slip apart; a pair may come again."""
        for found in self._shapes.values():
            for a, b in combinations(found, 2):
                if misspelled(a, b, typo):
                    yield a.key, b.key


def _shapes(identity: Identity) -> Iterator[tuple[str, ...]]:
    """The words; all but one; all but one and what is left of that one; two written as one."""
    words = identity.words
    yield tuple(sorted(words))
    for number, word in enumerate(words):
        others = sorted(words[:number] + words[number + 1 :])
        yield (*others,)
        yield from (("", *others, left) for left in _shortened(word))
    yield from (tuple(sorted(joined)) for joined, _ in _joins(words))


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
