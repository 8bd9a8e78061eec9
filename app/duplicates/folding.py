"""Groups products that are one, each with its evidence, and links those that only read alike.

Pure functions. Two products are one if a verdict says so, if they share a gtin, an mpn or an item
group, or if their words agree by a rule and their pictures agree. `analytics.product_groups` forms
the same groups in SQL, without the rule `typo`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.duplicates.evidence import (
    GTIN,
    ITEM_GROUP,
    MPN,
    NO_PICTURE,
    NOTHING_TO_COMPARE,
    OTHER_GTIN,
    OTHER_PICTURES,
    ROUNDING,
    VERDICT,
    WORDS_AND_PICTURES,
    Distances,
    LoadPictures,
    PictureEvidence,
    distance_blocks,
    nearest_distances,
    no_pictures,
)
from app.duplicates.general_words import is_generic
from app.duplicates.identifiers import Identifiers, identifiers
from app.duplicates.near_pairs import NearPairs, join_nearest_first
from app.duplicates.normalization import identity
from app.duplicates.rules import group_by_verdicts, rule_of
from app.duplicates.union_find import UnionFind
from app.duplicates.word_links import WordLink, connected, word_links
from app.types import Product, Verdict

DECIMALS = 6
"""Distances are ordered by so many decimals: the rest is rounding of float32."""

IDENTIFIERS = {"gtin": GTIN, "mpn": MPN, "item_group": ITEM_GROUP}
"""Fields of `Identifiers` with the evidence that they are, the strongest first."""

NO_DISTANCE = 3.0
"""Greater than every cosine distance: no pictures to compare."""


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
    """A candidate listed under its keeper; `matched_by` is the sku the rule compared it with.

    `evidence` is what the fold rests on, `distance` the cosine distance (0 to 2) of the nearest
    pictures of the two; None where one has none to compare.
    """

    candidate: FoldCandidate
    rule: str
    matched_by: str
    evidence: str = WORDS_AND_PICTURES
    distance: float | None = None


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Candidates that are one product: the keeper, which is shown, and the others, best first."""

    keeper: FoldCandidate
    folded: tuple[FoldedCandidate, ...] = ()

    @property
    def skus(self) -> tuple[str, ...]:
        return self.keeper.sku, *(fold.candidate.sku for fold in self.folded)


@dataclass(frozen=True, slots=True)
class SimilarPair:
    """Products of two groups whose words agree by `rule`, and the `reason` why they are not one.

    `distance` is that of their nearest pictures (cosine, 0 to 2), None without pictures.
    """

    product: Product
    other: Product
    rule: str
    reason: str
    distance: float | None


def fold(
    candidates: Sequence[FoldCandidate],
    verdicts: Sequence[Verdict],
    min_spelling_similarity: float,
    load_pictures: LoadPictures = no_pictures,
) -> list[DuplicateGroup]:
    """Group the candidates (of distinct skus) that are one product, the best group first.

    Verdicts take precedence over all other evidence and are transitive: if A is the same as B and B
    differs from C, then A differs from C, even if B is not a candidate. If verdicts contradict each
    other, "same" wins. Products with different gtins are kept apart unless a verdict joins them.
    Then shared identifiers join, then words and pictures, the nearest pair first, and last words
    alone, where a product has no picture to compare, its title is telling, and all products with
    these words that have one are already one. The result does not depend on the order of the
    candidates. `load_pictures` reads those of the products whose words agree.
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
    ) -> None:
        """Arguments as of `fold`. Reads the pictures of the products whose words agree."""
        self._candidates = sorted(candidates, key=lambda candidate: candidate.sku)
        self._minimum = min_spelling_similarity
        self._products = {each.sku: each.product for each in self._candidates}
        self._identities = {sku: identity(each) for sku, each in self._products.items()}
        self._identifiers = {
            sku: identifiers(each, self._identities[sku].key)
            for sku, each in self._products.items()
        }
        self._links = word_links(self._identities, min_spelling_similarity)
        self._sharing = _sharing(self._identifiers)
        compared = {sku for link in self._links for sku in (*link.first, *link.second)}
        compared.update(sku for skus in self._sharing for sku in skus)
        compared.update(
            {sku for v in verdicts for sku in (v.sku_a, v.sku_b)} & self._products.keys()
        )
        pictures = load_pictures(sorted(compared)) if compared else PictureEvidence()
        self._vectors, self._cuts = pictures.vectors, pictures.cuts
        self._by_verdicts = group_by_verdicts(verdicts)
        self._groups = self._by_verdicts.copy()
        self._join_identifiers()
        self._join_pictures()
        self._join_words_alone()

    def groups(self) -> list[DuplicateGroup]:
        """The groups, the best first."""
        members: dict[str, list[FoldCandidate]] = {}
        for candidate in sorted(self._candidates, key=_keeper_order):
            members.setdefault(self._groups.find(candidate.sku), []).append(candidate)
        return [self._group(group) for group in members.values()]

    def similar(self) -> list[SimilarPair]:
        """Each group whose words agree with those of another, with the nearest such group.

        At most one pair for each group and wording, so that many listings with the same words stay
        a short list. The pairs are ordered by their skus.
        """
        nearest: dict[tuple[str, tuple[str, str]], tuple[float, str, str]] = {}
        for link in self._links:
            for sku, other, distance in self._outside(link):
                a, b = min(sku, other), max(sku, other)
                group = self._groups.find(sku), link.keys
                nearest[group] = min(nearest.get(group, (distance, a, b)), (distance, a, b))
        pairs = []
        for a, b, distance in sorted({(a, b, distance) for distance, a, b in nearest.values()}):
            rule = rule_of(self._identities[a], self._identities[b], self._minimum)
            assert rule is not None, "the words of linked products agree"
            pairs.append(self._similar_pair(a, b, rule, distance))
        return pairs

    def relations(self, sku: str, others: Sequence[str]) -> list[SimilarPair]:
        """A candidate with each of the others whose words agree with it and which is not the same
        product, and why not."""
        found = []
        distances = self._distances(sku, others)
        for other in others:
            rule = rule_of(self._identities[sku], self._identities[other], self._minimum)
            if rule is not None and self._groups.find(sku) != self._groups.find(other):
                distance = distances.get(other, NO_DISTANCE)
                found.append(self._similar_pair(sku, other, rule, distance))
        return found

    def _join_identifiers(self) -> None:
        """Keep different gtins apart, and join products that share an identifier."""
        for sku, each in self._identifiers.items():
            if each.gtin is not None:
                self._groups.label(sku, each.gtin)
        for skus in self._sharing:
            self._groups.join_all(skus)

    def _join_pictures(self) -> None:
        """Join products whose words and pictures agree, where pairs are kept apart nearest first.

        Elsewhere the order is irrelevant, and a few of the pairs are enough.
        """
        for links in connected(self._links, self._groups):
            skus = sorted({sku for link in links for sku in (*link.first, *link.second)})
            constrained = any(self._groups.is_constrained(sku) for sku in skus)
            place_of = {sku: place for place, sku in enumerate(skus)}
            pairs = [pair for link in links for pair in self._agreeing(link, place_of, constrained)]
            join_nearest_first(self._groups, skus, pairs)

    def _agreeing(
        self, link: WordLink, place_of: Mapping[str, int], all_: bool
    ) -> Iterator[NearPairs]:
        """Pairs of a link whose pictures agree, by the places of their products.

        All of them, or enough to connect the same products: at most one for each product.
        """
        rows, columns, blocks = self._compared(link)
        generic = any(map(is_generic, link.keys))
        second = [self._products[sku] for sku in columns]
        row_places, places = (
            np.array([place_of[sku] for sku in side], np.int32) for side in (rows, columns)
        )
        offset = 0 if link.within else len(rows)
        part = np.arange(offset + len(columns))  # the number of the part that a product is in
        for start, distances in blocks:
            first = [self._products[sku] for sku in rows[start : start + len(distances)]]
            near = distances <= self._cuts.matrix(first, second, generic=generic) + ROUNDING
            if link.within:
                near = np.triu(near, start + 1)
            if not all_:
                near = _connecting(near, start, offset, part)
            one, other = np.nonzero(near)
            yield NearPairs(
                distances[one, other].round(DECIMALS), row_places[one + start], places[other]
            )

    def _join_words_alone(self) -> None:
        """Join products with the same telling words if pictures are missing.

        If the products that have pictures are several groups, the others could belong to any, and
        are joined among themselves only.
        """
        telling = [link for link in self._links if not any(map(is_generic, link.keys))]
        parts = connected(telling, UnionFind())
        pictured = [
            {
                self._groups.find(sku)
                for link in links for sku in (*link.first, *link.second) if sku in self._vectors
            }
            for links in parts
        ]  # fmt: skip
        for links, groups in zip(parts, pictured, strict=True):
            for link in links:
                sides = [
                    [sku for sku in side if len(groups) < 2 or sku not in self._vectors]
                    for side in (link.first, link.second)
                ]
                if all(sides) and any(sku not in self._vectors for side in sides for sku in side):
                    self._groups.join_all(sorted({sku for side in sides for sku in side}))

    def _compared(
        self, link: WordLink
    ) -> tuple[list[str], list[str], Iterator[tuple[int, Distances]]]:
        """The products of both sides that have pictures, and their distances in blocks of rows."""
        rows = [sku for sku in link.first if sku in self._vectors]
        columns = [sku for sku in link.second if sku in self._vectors]
        if not rows or not columns:
            return [], [], iter(())
        blocks = distance_blocks(
            [self._vectors[sku] for sku in rows], [self._vectors[sku] for sku in columns]
        )
        return rows, columns, blocks

    def _outside(self, link: WordLink) -> Iterator[tuple[str, str, float]]:
        """Products of a link, each with the nearest one of another group and the distance; with
        any one and the distance NO_DISTANCE where pictures are missing."""
        group_of = {sku: self._groups.find(sku) for sku in (*link.first, *link.second)}
        if len(set(group_of.values())) < 2:
            return
        rows, columns, blocks = self._compared(link)
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
        return SimilarPair(self._products[a], self._products[b], rule, reason, known)

    def _group(self, members: Sequence[FoldCandidate]) -> DuplicateGroup:
        """The group of its members, of which the first is the keeper, each with its evidence."""
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
        if self._by_verdicts.find(sku) == self._by_verdicts.find(other):
            return FoldedCandidate(candidate, VERDICT, other, VERDICT, distance)
        ours, theirs = self._identifiers[sku], self._identifiers[other]
        for name, evidence in IDENTIFIERS.items():
            if getattr(ours, name) is not None and getattr(ours, name) == getattr(theirs, name):
                return FoldedCandidate(candidate, evidence, other, evidence, distance)
        a, b = self._identities[sku], self._identities[other]
        rule = rule_of(a, b, self._minimum)
        if rule is None:
            return None
        generic = is_generic(a.key) or is_generic(b.key)
        if distance is None:
            return None if generic else FoldedCandidate(candidate, rule, other, NO_PICTURE, None)
        category = candidate.product.category
        shared = category if category == self._products[other].category else None
        agree = distance <= self._cuts.cut(shared, generic=generic) + ROUNDING
        return FoldedCandidate(candidate, rule, other, distance=distance) if agree else None

    def _distances(self, sku: str, others: Sequence[str]) -> dict[str, float]:
        """The distance of a candidate's nearest pictures to those of others, as far as both have
        pictures."""
        pictured = [other for other in others if other in self._vectors]
        if sku not in self._vectors or not pictured:
            return {}
        found = nearest_distances(
            [self._vectors[sku]], [self._vectors[other] for other in pictured]
        )
        return dict(zip(pictured, found[0].tolist(), strict=True))


def _connecting(
    near: NDArray[np.bool_], start: int, offset: int, part: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Those of the pairs in a block (rows from `start`, columns numbered from `offset`) that
    connect two parts; merges the parts."""
    kept = np.zeros_like(near)
    for row, is_near in enumerate(near):
        hits = np.flatnonzero(is_near)
        hits = hits[part[hits + offset] != part[start + row]]
        parts, places = np.unique(part[hits + offset], return_index=True)
        kept[row, hits[places]] = True
        part[np.isin(part, parts)] = part[start + row]
    return kept


def _sharing(own: Mapping[str, Identifiers]) -> list[list[str]]:
    """The products (skus in order) that share an identifier, the strongest first."""
    sharing: dict[tuple[int, str], list[str]] = {}
    for sku, each in own.items():
        for strength, name in enumerate(IDENTIFIERS):
            if (value := getattr(each, name)) is not None:
                sharing.setdefault((strength, value), []).append(sku)
    return [skus for _, skus in sorted(sharing.items()) if len(skus) > 1]


def _keeper_order(candidate: FoldCandidate) -> tuple[float, int, str]:
    """Sort key, keeper first: the most similar, then the newest, then the first by sku."""
    year = candidate.product.year
    return -candidate.similarity, -year if year is not None else 1, candidate.sku
