"""Finds the products whose words agree, as sets instead of pairs: a set may hold many products."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from app.duplicates.normalization import Identities, Identity, Words
from app.duplicates.typos import PairBudget, typo_pairs
from app.duplicates.union_find import UnionFind
from app.duplicates.word_rules import kind_of, rule_of

Spelling = tuple[str, Words]
"""An identity key and the words in order: another order has the same key, but other typos."""


@dataclass(frozen=True, slots=True)
class WordLink:
    """Products (skus in order) whose words agree: each of `first` with each of `second`.

    The two are the same for products with one identity key, and disjoint for a typo. `keys` are the
    identity keys of the two. `is_telling` is whether the words need not be looked at, because
    something else, an item group, says what the products are.
    """

    keys: tuple[str, str]
    first: tuple[str, ...]
    second: tuple[str, ...]
    is_telling: bool = False

    @property
    def within(self) -> bool:
        """Whether this links products of one key."""
        return self.first == self.second


def word_links(
    identities: Identities,
    min_spelling_similarity: float,
    budget: PairBudget | None = None,
) -> list[WordLink]:
    """All links among products, whose identities are given by sku; those of one key first.

    Links by the rule `typo` are found as far as the budget goes.
    """
    by_key: dict[str, list[str]] = {}
    for sku in (sku for group in identities.may_agree() for sku in sorted(group)):
        if key := identities[sku].key:
            by_key.setdefault(key, []).append(sku)
    same = [WordLink((key, key), tuple(by_key[key]), tuple(by_key[key])) for key in sorted(by_key)]
    return [
        *(link for link in same if len(link.first) > 1),
        *_typo_links(identities, by_key, min_spelling_similarity, budget or PairBudget()),
    ]


def connected(links: Sequence[WordLink], groups: UnionFind) -> list[list[WordLink]]:
    """The links in parts that share no product, even through a common set of `groups`."""
    parts = UnionFind()
    for link in links:
        first = groups.find(link.first[0])
        for sku in link.first if link.within else (*link.first, *link.second):
            parts.join(first, groups.find(sku))
    by_part: dict[str, list[WordLink]] = {}
    for link in links:
        by_part.setdefault(parts.find(groups.find(link.first[0])), []).append(link)
    return list(by_part.values())


def _typo_links(
    identities: Mapping[str, Identity],
    by_key: Mapping[str, Sequence[str]],
    min_spelling_similarity: float,
    budget: PairBudget,
) -> Iterator[WordLink]:
    """Links of two spellings of one kind that differ by a typo."""
    if len(by_key) < 2:
        return
    kinds: dict[object, dict[Spelling, list[str]]] = {}
    for skus in by_key.values():
        for sku in skus:
            each = identities[sku]
            spelling = each.key, each.words
            kinds.setdefault(kind_of(each), {}).setdefault(spelling, []).append(sku)
    for spellings in kinds.values():
        if len({key for key, _ in spellings}) < 2:
            continue
        one_of = {spelling: identities[skus[0]] for spelling, skus in spellings.items()}
        keys = typo_pairs(list(one_of.values()), min_spelling_similarity, budget)
        orders: dict[str, list[Spelling]] = {}
        for spelling in spellings:
            orders.setdefault(spelling[0], []).append(spelling)
        for first_key, second_key in sorted({(min(pair), max(pair)) for pair in keys}):
            for first in orders[first_key]:
                for second in orders[second_key]:
                    if rule_of(one_of[first], one_of[second], min_spelling_similarity):
                        yield WordLink(
                            (first_key, second_key),
                            tuple(spellings[first]),
                            tuple(spellings[second]),
                        )
