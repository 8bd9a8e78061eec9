"""Decides which products are the same: named rules, verdicts, and the groups that follow from both.

Pure functions over words; prices and pictures are not evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product as pairs

from app.duplicates.normalization import Identity, identity
from app.duplicates.typos import differ_by_typo, typo_pairs
from app.duplicates.union_find import UnionFind
from app.types import Product, Verdict

VERDICT = "verdict"
"""Name of the rule where a verdict decided it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A way in which two products can be the same.

    `holds(a, b, typo)` tests it on two identities.
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


def same_product(a: Product, b: Product, typo: float) -> str | None:
    """The name of the first rule by which two products are one; None if there is none.

    `typo` is the similarity (0 to 1) that two spellings of a word must reach. Symmetric.
    """
    return _rule(identity(a), identity(b), typo)


def fold(
    candidates: Sequence[FoldCandidate], verdicts: Sequence[Verdict], typo: float
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
    _join_typos(identities, groups, typo)
    members: dict[str, list[FoldCandidate]] = {}
    for candidate in sorted(ordered, key=_keeper_order):
        members.setdefault(groups.find(candidate.sku), []).append(candidate)
    return [_group(group, identities, by_verdicts, typo) for group in members.values()]


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


def _same_words(a: Identity, b: Identity, typo: float) -> bool:
    return _another_year(a, b, typo) and a.years == b.years


def _another_year(a: Identity, b: Identity, typo: float) -> bool:
    return _another_size(a, b, typo) and a.sizes == b.sizes


def _another_size(a: Identity, b: Identity, typo: float) -> bool:
    return bool(a.key) and a.key == b.key


def _typo(a: Identity, b: Identity, typo: float) -> bool:
    return bool(a.key and b.key) and _kind(a) == _kind(b) and differ_by_typo(a, b, typo)


RULES = (
    Rule("same words", _same_words),
    Rule("another year", _another_year),
    Rule("another size", _another_size),
    Rule("typo", _typo),
)
"""In the order they are tried."""


def _rule(a: Identity, b: Identity, typo: float) -> str | None:
    return next((rule.name for rule in RULES if rule.holds(a, b, typo)), None)


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


def _join_typos(identities: dict[str, Identity], groups: UnionFind, typo: float) -> None:
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
        near = {tuple(sorted(pair)) for pair in typo_pairs(list(spelled.values()), typo)}
        for first, second in sorted(near):
            for one, other in pairs(keys[first], keys[second]):
                if _rule(identities[one], identities[other], typo) is not None:
                    groups.join(one, other)


def _group(
    members: Sequence[FoldCandidate],
    identities: dict[str, Identity],
    by_verdicts: UnionFind,
    typo: float,
) -> DuplicateGroup:
    """The group of its members, of which the first is the keeper, each with its rule."""
    folds = {
        fold.candidate.sku: fold for fold in _explained(members, identities, by_verdicts, typo)
    }
    return DuplicateGroup(members[0], tuple(folds[member.sku] for member in members[1:]))


def _explained(
    members: Sequence[FoldCandidate],
    identities: dict[str, Identity],
    by_verdicts: UnionFind,
    typo: float,
) -> Iterator[FoldedCandidate]:
    """The rule of each member: against the keeper if one holds, else against the first member that
    was explained before."""
    reached, waiting = [members[0]], list(members[1:])
    for known in reached:
        left = []
        for candidate in waiting:
            if by_verdicts.find(known.sku) == by_verdicts.find(candidate.sku):
                rule: str | None = VERDICT
            else:
                rule = _rule(identities[known.sku], identities[candidate.sku], typo)
            if rule is None:
                left.append(candidate)
            else:
                reached.append(candidate)
                yield FoldedCandidate(candidate, rule, known.sku)
        waiting = left
