"""Decides which products are the same: named rules, verdicts, and the groups that follow from both.

Pure functions over words; prices and pictures are not evidence.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from app.duplicates.normalization import Identity, identity
from app.duplicates.typos import differ_by_typo, typo_pairs
from app.duplicates.union_find import UnionFind
from app.types import Product, Verdict

VERDICT = "verdict"
"""Name of the rule where a verdict decided it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A way in which two products can be the same.

    `holds(a, b, min_spelling_similarity)` tests it on two identities. Only the rule `typo` uses the
    minimum (0 to 1), the similarity that two spellings of a word must reach.
    """

    name: str
    holds: Callable[[Identity, Identity, float], bool]


@dataclass(frozen=True, slots=True)
class FoldCandidate:
    """A product to be folded, and its similarity to the query."""

    product: Product
    similarity: float

    @property
    def sku(self) -> str:
        return self.product.sku


@dataclass(frozen=True, slots=True)
class FoldedCandidate:
    """A candidate listed under its keeper; `matched_by` is the sku the rule compared it with."""

    candidate: FoldCandidate
    rule: str
    matched_by: str


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Candidates that are one product: the keeper, which is shown, and the others, best first."""

    keeper: FoldCandidate
    folded: tuple[FoldedCandidate, ...] = ()


def same_product(a: Product, b: Product, min_spelling_similarity: float) -> str | None:
    """The name of the first rule by which two products are one; None if there is none.

    Two spellings of a word must have at least `min_spelling_similarity` (0 to 1). Symmetric.
    """
    return _rule(identity(a), identity(b), min_spelling_similarity)


def fold(
    candidates: Sequence[FoldCandidate], verdicts: Sequence[Verdict], min_spelling_similarity: float
) -> list[DuplicateGroup]:
    """Group the candidates (of distinct skus) that are one product, the best group first.

    Verdicts take precedence over rules and are transitive: if A is the same as B and B differs from
    C, then A differs from C, even if B is not a candidate. If verdicts contradict each other,
    "same" wins. The result does not depend on the order of the candidates.
    """
    ordered = sorted(candidates, key=lambda candidate: candidate.sku)
    identities = {c.sku: identity(c.product) for c in ordered}
    by_verdicts = group_by_verdicts(verdicts)
    groups = by_verdicts.copy()
    _join_same_keys(identities, groups)
    _join_typos(identities, groups, min_spelling_similarity)
    members: dict[str, list[FoldCandidate]] = {}
    for candidate in sorted(ordered, key=_keeper_order):
        members.setdefault(groups.find(candidate.sku), []).append(candidate)
    return [
        _group(group, identities, by_verdicts, min_spelling_similarity)
        for group in members.values()
    ]


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


def _keeper_order(candidate: FoldCandidate) -> tuple[float, int, str]:
    """Sort key, keeper first: the most similar, then the newest, then the first by sku."""
    year = candidate.product.year
    return -candidate.similarity, -year if year is not None else 1, candidate.sku


def _same_words(a: Identity, b: Identity, _: float) -> bool:
    return _same_key(a, b) and a.sizes == b.sizes and a.years == b.years


def _another_year(a: Identity, b: Identity, _: float) -> bool:
    return _same_key(a, b) and a.sizes == b.sizes


def _another_size(a: Identity, b: Identity, _: float) -> bool:
    return _same_key(a, b)


def _typo(a: Identity, b: Identity, min_spelling_similarity: float) -> bool:
    return (
        bool(a.key and b.key)
        and _kind(a) == _kind(b)
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


def _rule(a: Identity, b: Identity, min_spelling_similarity: float) -> str | None:
    return next((rule.name for rule in RULES if rule.holds(a, b, min_spelling_similarity)), None)


def _same_key(a: Identity, b: Identity) -> bool:
    return bool(a.key) and a.key == b.key


def _kind(identity: Identity) -> tuple[tuple[str, ...], ...]:
    """The parts that must be equal for a typo elsewhere to count."""
    return identity.brand, identity.category, identity.colour, identity.numbers


def _join_same_keys(identities: dict[str, Identity], groups: UnionFind) -> None:
    """Join products with the same key: first equal ones, then other years, then other sizes."""
    counts = Counter(each.key for each in identities.values())
    shared = {sku: each for sku, each in identities.items() if each.key and counts[each.key] > 1}
    sort_keys: tuple[Callable[[Identity], object], ...] = (
        lambda i: (i.key, i.sizes, i.years),
        lambda i: (i.key, i.sizes),
        lambda i: i.key,
    )
    for sort_key in sort_keys:
        classes: dict[object, list[str]] = {}
        for sku, each in shared.items():
            classes.setdefault(sort_key(each), []).append(sku)
        for skus in classes.values():
            groups.join_all(skus)


def _join_typos(
    identities: dict[str, Identity], groups: UnionFind, min_spelling_similarity: float
) -> None:
    """Join products of one kind whose words differ by a typo."""
    kinds: dict[object, dict[str, list[str]]] = {}
    for sku, each in identities.items():
        if each.key:
            kinds.setdefault(_kind(each), {}).setdefault(each.key, []).append(sku)
    for keys in kinds.values():
        # The same words in another order have the same key, but differ by other typos.
        spelled = {
            (key, identities[sku].words): identities[sku]
            for key, skus in keys.items()
            for sku in skus
        }
        near = {
            tuple(sorted(pair))
            for pair in typo_pairs(list(spelled.values()), min_spelling_similarity)
        }
        for first, second in sorted(near):
            for one, other in itertools.product(keys[first], keys[second]):
                if _rule(identities[one], identities[other], min_spelling_similarity) is not None:
                    groups.join(one, other)


def _group(
    members: Sequence[FoldCandidate],
    identities: dict[str, Identity],
    by_verdicts: UnionFind,
    min_spelling_similarity: float,
) -> DuplicateGroup:
    """The group of its members, of which the first is the keeper, each with its rule."""
    folds = {
        fold.candidate.sku: fold
        for fold in _explained(members, identities, by_verdicts, min_spelling_similarity)
    }
    return DuplicateGroup(members[0], tuple(folds[member.sku] for member in members[1:]))


def _explained(
    members: Sequence[FoldCandidate],
    identities: dict[str, Identity],
    by_verdicts: UnionFind,
    min_spelling_similarity: float,
) -> Iterator[FoldedCandidate]:
    """The rule of each member: against the keeper if one holds, else against the first member that
    was explained before."""
    explained, unexplained = [members[0]], list(members[1:])
    for earlier in explained:  # grows in the loop
        remaining = []
        for candidate in unexplained:
            if by_verdicts.find(earlier.sku) == by_verdicts.find(candidate.sku):
                rule: str | None = VERDICT
            else:
                rule = _rule(
                    identities[earlier.sku], identities[candidate.sku], min_spelling_similarity
                )
            if rule is None:
                remaining.append(candidate)
            else:
                explained.append(candidate)
                yield FoldedCandidate(candidate, rule, earlier.sku)
        unexplained = remaining
