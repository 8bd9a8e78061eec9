"""Groups products that are one, each with its evidence, and links those that only read alike.

Pure functions. `analytics.product_groups` forms the same groups in SQL, without the rule `typo`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from app.duplicates.evidence import (
    NO_PICTURE,
    NOTHING_TO_COMPARE,
    OTHER_GTIN,
    OTHER_PICTURES,
    ROUNDING,
    VERDICT,
    LoadPictures,
    nearest_distances,
    no_pictures,
)
from app.duplicates.general_words import is_generic
from app.duplicates.groups import (
    DuplicateGroup,
    FoldCandidate,
    FoldedCandidate,
    SimilarPair,
    keeper_order,
)
from app.duplicates.same_product import DECIMALS, IDENTIFIERS, collect, compared, join
from app.duplicates.word_links import WordLink
from app.duplicates.word_rules import RuleTable
from app.types import Verdict

FEW = 8
"""Products up to which pictures are compared one by one: numpy's calls take longer."""

NO_DISTANCE = 3.0
"""Greater than every cosine distance: no pictures to compare."""


def fold(
    candidates: Sequence[FoldCandidate],
    verdicts: Sequence[Verdict],
    min_spelling_similarity: float,
    load_pictures: LoadPictures = no_pictures,
) -> list[DuplicateGroup]:
    """Group the candidates (of distinct skus) that are one product, the best group first.

    Verdicts take precedence over all other evidence and are transitive: if A is the same as B and B
    differs from C, then A differs from C, even if B is not a candidate. If verdicts contradict each
    other, "same" wins. Then a shared gtin joins, and an item group its variants: those of one
    colour, or, where no colour is known, those whose pictures agree. Products with different gtins
    are kept apart otherwise. Then the other identifiers join, then words and pictures, the nearest
    pair first, and last words alone, where a product has no picture to compare, its title is
    telling, and all products with these words that have one are already one. The result does not
    depend on the order of the candidates. `load_pictures` reads the pictures of the products whose
    words agree.
    """
    return Folding(candidates, verdicts, min_spelling_similarity, load_pictures).groups()


class Folding:
    """The candidates of one `fold` with all evidence about them, and the groups that follow."""

    def __init__(
        self,
        candidates: Sequence[FoldCandidate],
        verdicts: Sequence[Verdict],
        min_spelling_similarity: float,
        load_pictures: LoadPictures = no_pictures,
        max_typo_pairs: int | None = None,
    ) -> None:
        """Arguments as of `fold`. Reads the pictures of the products whose words agree.

        At most `max_typo_pairs` likely pairs of spellings are compared (None: all).
        """
        self._candidates = sorted(candidates, key=lambda candidate: candidate.sku)
        products = [each.product for each in self._candidates]
        self._evidence = collect(
            products, verdicts, min_spelling_similarity, load_pictures, max_typo_pairs
        )
        self._vectors = self._evidence.pictures.vectors
        self._rules = RuleTable(self._evidence.identities, min_spelling_similarity)
        self._groups = join(self._evidence)

    @property
    def not_tried(self) -> tuple[str, ...]:
        """What was not compared because it would take too long, in sentences."""
        return self._evidence.not_tried

    def groups(self) -> list[DuplicateGroup]:
        """The groups, the best first."""
        return list(map(self.explained, self.members()))

    def members(self) -> list[list[FoldCandidate]]:
        """The candidates of each group, the keeper first; the best group first."""
        members: dict[str, list[FoldCandidate]] = {}
        for candidate in sorted(self._candidates, key=keeper_order):
            members.setdefault(self._groups.find(candidate.sku), []).append(candidate)
        return list(members.values())

    def similar(self) -> list[SimilarPair]:
        """Each group whose words agree with those of another, with the nearest such group.

        At most one pair for each group and wording, so that many listings with the same words stay
        a short list. The pairs are ordered by their skus.
        """
        nearest: dict[tuple[str, tuple[str, str]], tuple[float, str, str]] = {}
        for link in self._evidence.links:
            for sku, other, distance in self._outside(link):
                a, b = min(sku, other), max(sku, other)
                group = self._groups.find(sku), link.keys
                nearest[group] = min(nearest.get(group, (distance, a, b)), (distance, a, b))
        pairs = []
        for a, b, distance in sorted({(a, b, distance) for distance, a, b in nearest.values()}):
            rule = self._rules.rule_of(a, b)
            assert rule is not None, "the words of linked products agree"
            pairs.append(self._similar_pair(a, b, rule, distance))
        return pairs

    def relations(self, sku: str, others: Sequence[str]) -> list[SimilarPair]:
        """A candidate with each of the others whose words agree with it and which is not the same
        product, and why not."""
        found = []
        distances = self._distances(sku, others)
        for other in others:
            rule = self._rules.rule_of(sku, other)
            if rule is not None and self._groups.find(sku) != self._groups.find(other):
                distance = distances.get(other, NO_DISTANCE)
                found.append(self._similar_pair(sku, other, rule, distance))
        return found

    def _outside(self, link: WordLink) -> Iterator[tuple[str, str, float]]:
        """Products of a link, each with the nearest one of another group and the distance; with
        any one and the distance NO_DISTANCE where pictures are missing."""
        group_of = {sku: self._groups.find(sku) for sku in (*link.first, *link.second)}
        if len(set(group_of.values())) < 2:
            return
        rows, columns, blocks = compared(self._evidence, link)
        numbers = {group: number for number, group in enumerate(sorted(set(group_of.values())))}
        row_groups, column_groups = (
            np.array([numbers[group_of[sku]] for sku in side]) for side in (rows, columns)
        )
        for start, distances in blocks:
            own = row_groups[start : start + len(distances), None] == column_groups
            outside = np.where(own, NO_DISTANCE, distances.round(DECIMALS))
            for number, nearest in enumerate(outside.argmin(axis=1).tolist()):
                if not own[number, nearest]:
                    distance = float(outside[number, nearest])
                    yield rows[start + number], columns[nearest], distance
        for one, other in ((link.first, link.second), (link.second, link.first)):
            # One product of each of two groups: at least one of them is of another group.
            some = list({group_of[sku]: sku for sku in reversed(other)}.items())[-2:]
            for sku in one:
                if sku not in self._vectors or not (rows and columns):
                    for group, far in reversed(some):
                        if group != group_of[sku]:
                            yield sku, far, NO_DISTANCE
                            break

    def _similar_pair(self, a: str, b: str, rule: str, distance: float) -> SimilarPair:
        known = None if distance == NO_DISTANCE else distance
        if self._groups.labels_differ(a, b):
            reason = OTHER_GTIN
        elif self._groups.are_apart(a, b):
            reason = VERDICT
        else:
            reason = NOTHING_TO_COMPARE if known is None else OTHER_PICTURES
        return SimilarPair(
            self._evidence.products[a], self._evidence.products[b], rule, reason, known
        )

    def explained(self, members: Sequence[FoldCandidate]) -> DuplicateGroup:
        """The group of these members, the keeper first, each with its evidence."""
        folds = {fold.candidate.sku: fold for fold in self._explained(members)}
        return DuplicateGroup(members[0], tuple(folds[member.sku] for member in members[1:]))

    def _explained(self, members: Sequence[FoldCandidate]) -> Iterator[FoldedCandidate]:
        """The evidence of each member: against the keeper if there is any, else against the first
        member that was explained before."""
        explained, unexplained = [members[0]], list(members[1:])
        for earlier in explained:  # grows in the loop
            remaining = []
            distances = self._distances(earlier.sku, [each.sku for each in unexplained])
            for candidate in unexplained:
                fold = self._explain(candidate, earlier.sku, distances.get(candidate.sku))
                if fold is None:
                    remaining.append(candidate)
                else:
                    explained.append(candidate)
                    yield fold
            unexplained = remaining

    def _explain(
        self, candidate: FoldCandidate, other: str, distance: float | None
    ) -> FoldedCandidate | None:
        """The direct evidence that a candidate and another product, at this distance, are one; None
        without any."""
        sku = candidate.sku
        if self._evidence.by_verdicts.find(sku) == self._evidence.by_verdicts.find(other):
            return FoldedCandidate(candidate, VERDICT, other, VERDICT, distance)
        ours, theirs = (self._evidence.identifiers[each] for each in (sku, other))
        for name, evidence in IDENTIFIERS.items():
            if getattr(ours, name) is not None and getattr(ours, name) == getattr(theirs, name):
                return FoldedCandidate(candidate, evidence, other, evidence, distance)
        rule = self._rules.rule_of(sku, other)
        if rule is None:
            return None
        generic = any(is_generic(self._evidence.identities[each].key) for each in (sku, other))
        if distance is None:
            return None if generic else FoldedCandidate(candidate, rule, other, NO_PICTURE, None)
        category = candidate.product.category
        shared = category if category == self._evidence.products[other].category else None
        agree = distance <= self._evidence.pictures.cuts.cut(shared, generic=generic) + ROUNDING
        return FoldedCandidate(candidate, rule, other, distance=distance) if agree else None

    def _distances(self, sku: str, others: Sequence[str]) -> dict[str, float]:
        """The distance of a candidate's nearest pictures to those of others, as far as both have
        pictures."""
        pictured = [other for other in others if other in self._vectors]
        if sku not in self._vectors or not pictured:
            return {}
        if len(pictured) <= FEW:
            return {other: self._evidence.pictures.distance(sku, other) for other in pictured}
        found = nearest_distances(
            [self._vectors[sku]], [self._vectors[other] for other in pictured]
        )
        return dict(zip(pictured, found[0].tolist(), strict=True))
