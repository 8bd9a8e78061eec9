"""Which products are one: named rules, verdicts of people, and the groups that come of both.

Pure functions over words; neither price nor picture is evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product as pairs

from app.duplicates.normalization import Identity, identity
from app.duplicates.typos import misspelled, slips
from app.duplicates.union_find import UnionFind
from app.types import Product, Verdict

VERDICT = "verdict"
"""The rule a fold names when a person decided it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A way in which two products can be the same, and the test of it on their identities."""

    name: str
    holds: Callable[[Identity, Identity, float], bool]


@dataclass(frozen=True, slots=True)
class FoldCandidate:
    """A product to be folded and how similar it is to what was looked for."""

    product: Product
    similarity: float

    @property
    def sku(self) -> str:
        return self.product.sku


@dataclass(frozen=True, slots=True)
class FoldedCandidate:
    """A candidate that is listed under the keeper, by which rule, and as the same as which sku."""

    candidate: FoldCandidate
    rule: str
    matched_by: str


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Candidates that are one product: the one that is shown, and the others, best first."""

    keeper: FoldCandidate
    folded: tuple[FoldedCandidate, ...] = ()


def same_product(a: Product, b: Product, typo: float) -> str | None:
    """The name of the first rule by which these are one product; None if they are two.

    `typo` is the similarity (0 to 1) two spellings of a word must reach. Symmetric.
    """
    return _rule(identity(a), identity(b), typo)


def fold(
    candidates: Sequence[FoldCandidate], verdicts: Sequence[Verdict], typo: float
) -> list[DuplicateGroup]:
    """Group the candidates (of distinct skus) that are one product, the best group first.

    Verdicts come before rules and hold through others: if A is the same as B and B differs from C,
    then A differs from C, also where B is no candidate. Where verdicts contradict each other, same
    wins. The order of the candidates makes no difference.
    """
    ordered = sorted(candidates, key=lambda candidate: candidate.sku)
    identities = {c.sku: identity(c.product) for c in ordered}
    judged = decided(verdicts)
    joined = judged.copy()
    _join_equal(identities, joined)
    _join_misspelled(identities, joined, typo)
    members: dict[str, list[FoldCandidate]] = {}
    for candidate in sorted(ordered, key=_rank):
        members.setdefault(joined.of(candidate.sku), []).append(candidate)
    return [_group(group, identities, judged, typo) for group in members.values()]


def decided(verdicts: Sequence[Verdict]) -> UnionFind:
    """The groups that verdicts make, of the skus they name, and the lines between them."""
    groups = UnionFind()
    for verdict in verdicts:
        if verdict.same:
            groups.join(verdict.sku_a, verdict.sku_b)
    for verdict in verdicts:
        if not verdict.same:
            groups.part(verdict.sku_a, verdict.sku_b)
    return groups


def _rank(candidate: FoldCandidate) -> tuple[float, int, str]:
    """What is kept comes first: the most similar, then the newest, then the first by sku."""
    year = candidate.product.year
    return -candidate.similarity, -year if year is not None else 1, candidate.sku


def _same_words(a: Identity, b: Identity, typo: float) -> bool:
    return _another_year(a, b, typo) and a.years == b.years


def _another_year(a: Identity, b: Identity, typo: float) -> bool:
    return _another_size(a, b, typo) and a.sizes == b.sizes


def _another_size(a: Identity, b: Identity, typo: float) -> bool:
    return bool(a.key) and a.key == b.key


def _typo(a: Identity, b: Identity, typo: float) -> bool:
    return bool(a.key and b.key) and _kind(a) == _kind(b) and misspelled(a, b, typo)


RULES = (
    Rule("same words", _same_words),
    Rule("another year", _another_year),
    Rule("another size", _another_size),
    Rule("typo", _typo),
)
"""In the order they are tried; each takes what the one before leaves."""


def _rule(a: Identity, b: Identity, typo: float) -> str | None:
    return next((rule.name for rule in RULES if rule.holds(a, b, typo)), None)


def _kind(identity: Identity) -> tuple[tuple[str, ...], ...]:
    """What two products must share to the letter, whatever is misspelled."""
    return identity.brand, identity.category, identity.colour, identity.numbers


def _join_equal(identities: dict[str, Identity], groups: UnionFind) -> None:
    """Join those of one key: first what nothing sets apart, then years, then sizes."""
    known = {sku: found for sku, found in identities.items() if found.key}
    times = Counter(found.key for found in known.values())
    shared = {sku: found for sku, found in known.items() if times[found.key] > 1}
    parts: tuple[Callable[[Identity], object], ...] = (
        lambda i: (i.key, i.sizes, i.years),
        lambda i: (i.key, i.sizes),
        lambda i: i.key,
    )
    for part in parts:
        classes: dict[object, list[str]] = {}
        for sku, found in shared.items():
            classes.setdefault(part(found), []).append(sku)
        for skus in classes.values():
            groups.join_all(skus)


def _join_misspelled(identities: dict[str, Identity], groups: UnionFind, typo: float) -> None:
    kinds: dict[object, dict[str, list[str]]] = {}
    for sku, found in identities.items():
        if found.key:
            kinds.setdefault(_kind(found), {}).setdefault(found.key, []).append(sku)
    for keys in kinds.values():
        # Words in another order make the same key, but not the same slip.
        spelled = {
            (key, identities[sku].words): identities[sku]
            for key, skus in keys.items()
            for sku in skus
        }
        near = {tuple(sorted(pair)) for pair in slips(list(spelled.values()), typo)}
        for first, second in sorted(near):
            for one, other in pairs(keys[first], keys[second]):
                if _rule(identities[one], identities[other], typo) is not None:
                    groups.join(one, other)


def _group(
    members: Sequence[FoldCandidate],
    identities: dict[str, Identity],
    decided: UnionFind,
    typo: float,
) -> DuplicateGroup:
    """A group of its members, the keeper first, each with the reason it is in."""
    folds = {fold.candidate.sku: fold for fold in _explained(members, identities, decided, typo)}
    return DuplicateGroup(members[0], tuple(folds[member.sku] for member in members[1:]))


def _explained(
    members: Sequence[FoldCandidate],
    identities: dict[str, Identity],
    decided: UnionFind,
    typo: float,
) -> Iterator[FoldedCandidate]:
    """Why each is in: by the keeper if a rule says so, else by the first that is in already."""
    reached, waiting = [members[0]], list(members[1:])
    for known in reached:
        left = []
        for candidate in waiting:
            if decided.of(known.sku) == decided.of(candidate.sku):
                rule: str | None = VERDICT
            else:
                rule = _rule(identities[known.sku], identities[candidate.sku], typo)
            if rule is None:
                left.append(candidate)
            else:
                reached.append(candidate)
                yield FoldedCandidate(candidate, rule, known.sku)
        waiting = left
