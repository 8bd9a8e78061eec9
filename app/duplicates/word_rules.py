"""Named rules by which the words of two products agree, and the groups that verdicts make.

Pure functions. Words alone fold nothing: `folding.py` adds pictures and identifiers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from app.duplicates.normalization import Identity, identity
from app.duplicates.typos import differ_by_typo
from app.duplicates.union_find import UnionFind
from app.types import Product, Verdict


@dataclass(frozen=True, slots=True)
class Rule:
    """A way in which the words of two products can agree.

    `holds(a, b, min_spelling_similarity)` tests it on two identities. Only the rule `typo` uses the
    minimum (0 to 1), the similarity that two spellings of a word must reach.
    """

    name: str
    holds: Callable[[Identity, Identity, float], bool]


def same_product(a: Product, b: Product, min_spelling_similarity: float) -> str | None:
    """The name of the first rule by which the words of two products agree; None if there is none.

    Two spellings of a word must have at least `min_spelling_similarity` (0 to 1). Symmetric.
    """
    return rule_of(identity(a), identity(b), min_spelling_similarity)


def group_by_verdicts(verdicts: Sequence[Verdict]) -> UnionFind:
    """The skus that verdicts name, grouped by "same" and kept apart by "different"."""
    groups = UnionFind()
    for verdict in verdicts:
        if verdict.same:
            groups.join(verdict.sku_a, verdict.sku_b)
    for verdict in verdicts:
        if not verdict.same:
            groups.keep_apart(verdict.sku_a, verdict.sku_b)
    return groups


def _same_words(a: Identity, b: Identity, _: float) -> bool:
    return _same_key(a, b) and a.sizes == b.sizes and a.years == b.years


def _another_year(a: Identity, b: Identity, _: float) -> bool:
    return _same_key(a, b) and a.sizes == b.sizes


def _another_size(a: Identity, b: Identity, _: float) -> bool:
    return _same_key(a, b)


def _typo(a: Identity, b: Identity, min_spelling_similarity: float) -> bool:
    return (
        bool(a.key and b.key)
        and kind_of(a) == kind_of(b)
        and differ_by_typo(a, b, min_spelling_similarity)
    )


RULES = (
    Rule("same words", _same_words),
    Rule("another year", _another_year),
    Rule("another size", _another_size),
    Rule("typo", _typo),
)
"""In the order they are tried; the first that holds names the pair. The order matters: another year
also holds for the same words, and another size for both."""


def rule_of(a: Identity, b: Identity, min_spelling_similarity: float) -> str | None:
    """`same_product` of two identities."""
    return next((rule.name for rule in RULES if rule.holds(a, b, min_spelling_similarity)), None)


class RuleTable:
    """The rules that hold for pairs of products; each pair of spellings is tested once."""

    def __init__(self, identities: Mapping[str, Identity], min_spelling_similarity: float) -> None:
        """`identities` by sku; `min_spelling_similarity` (0 to 1) as of `same_product`."""
        self._minimum = min_spelling_similarity
        self._identities = identities
        self._numbers: dict[Identity, int] = {}
        self._number_of: dict[str, int] = {}
        self._known: dict[tuple[int, int], str | None] = {}

    def rule_of(self, sku: str, other: str) -> str | None:
        """The first rule by which the words of two products agree; None if there is none."""
        a, b = self._number(sku), self._number(other)
        pair = (a, b) if a < b else (b, a)
        if pair not in self._known:
            first, second = self._identities[sku], self._identities[other]
            self._known[pair] = rule_of(first, second, self._minimum)
        return self._known[pair]

    def _number(self, sku: str) -> int:
        """The number of a product's spelling."""
        number = self._number_of.get(sku)
        if number is None:
            number = self._numbers.setdefault(self._identities[sku], len(self._numbers))
            self._number_of[sku] = number
        return number


def _same_key(a: Identity, b: Identity) -> bool:
    return bool(a.key) and a.key == b.key


def kind_of(identity: Identity) -> tuple[tuple[str, ...], ...]:
    """The parts that must be equal for a typo elsewhere to count."""
    return identity.brand, identity.category, identity.colour, identity.numbers
