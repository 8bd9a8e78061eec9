"""Joins candidates that are one product: by verdicts, identifiers, pictures, and words alone.

Pure functions. Two products are one if a verdict says so, if they share a gtin, an mpn or an item
group, or if their words agree by a rule and their pictures agree.
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
    ROUNDING,
    Distances,
    LoadPictures,
    PictureEvidence,
    distance_blocks,
    nearest_distances,
)
from app.duplicates.general_words import is_generic
from app.duplicates.identifiers import Identifiers, identifiers
from app.duplicates.near_pairs import NearPairs, connecting, join_nearest_first
from app.duplicates.normalization import Identities
from app.duplicates.typos import MAX_WORDS, PairBudget, is_too_long
from app.duplicates.union_find import UnionFind
from app.duplicates.word_links import WordLink, connected, word_links
from app.duplicates.word_rules import group_by_verdicts
from app.types import Product, Verdict

NO_IDENTIFIERS = Identifiers()

DECIMALS = 6
"""Distances are ordered by so many decimals: the rest is rounding of float32."""

FEW_PAIRS = 128
"""Pairs of a part up to which they are compared one by one: numpy's calls take longer."""

MANY_PAIRS = 256
"""Pairs of a link from which on it is tried whether all products agree with the first."""

IDENTIFIERS = {"gtin": GTIN, "mpn": MPN, "item_group": ITEM_GROUP}
"""Fields of `Identifiers` with the evidence that they are, the strongest first."""


@dataclass(frozen=True, slots=True)
class FoldEvidence:
    """What is known of the candidates of one fold, by sku: the arguments and what follows from each
    product alone.

    `links` are the products whose words agree, `sharing` those that share an identifier: its field
    in `Identifiers` and the skus in order.
    """

    products: Mapping[str, Product]
    identities: Identities
    identifiers: Mapping[str, Identifiers]
    links: Sequence[WordLink]
    sharing: Sequence[tuple[str, tuple[str, ...]]]
    pictures: PictureEvidence
    by_verdicts: UnionFind
    not_tried: tuple[str, ...] = ()
    """What was not compared because it would take too long, in sentences."""


def collect(
    products: Sequence[Product],
    verdicts: Sequence[Verdict],
    min_spelling_similarity: float,
    load_pictures: LoadPictures,
    max_typo_pairs: int | None = None,
) -> FoldEvidence:
    """The evidence about products of distinct skus; arguments as of `folding.Folding`.

    Reads the pictures of the products whose words agree, that share an identifier, or that a
    verdict names.
    """
    by_sku = {each.sku: each for each in sorted(products, key=lambda product: product.sku)}
    identities = Identities(by_sku)
    own = {
        sku: identifiers(each, identities[sku].key) if each.attributes else NO_IDENTIFIERS
        for sku, each in by_sku.items()
    }
    budget = PairBudget(max_typo_pairs)
    links = word_links(identities, min_spelling_similarity, budget)
    sharing = _sharing(own)
    compared = {sku for link in links for sku in (*link.first, *link.second)}
    compared.update(sku for _, skus in sharing for sku in skus)
    compared.update({sku for each in verdicts for sku in (each.sku_a, each.sku_b)} & by_sku.keys())
    pictures = load_pictures(sorted(compared)) if compared else PictureEvidence()
    return FoldEvidence(
        by_sku, identities, own, links, sharing, pictures, group_by_verdicts(verdicts),
        tuple(_not_tried(by_sku, identities, budget)),
    )  # fmt: skip


def join(evidence: FoldEvidence) -> UnionFind:
    """The sets of products that are one, the strongest evidence first."""
    return _Joining(evidence).groups


def compared(
    evidence: FoldEvidence, link: WordLink
) -> tuple[list[str], list[str], Iterator[tuple[int, Distances]]]:
    """The products of both sides of a link that have pictures, and their distances in blocks of
    rows."""
    vectors = evidence.pictures.vectors
    rows = [sku for sku in link.first if sku in vectors]
    columns = [sku for sku in link.second if sku in vectors]
    if not rows or not columns:
        return [], [], iter(())
    blocks = distance_blocks([vectors[sku] for sku in rows], [vectors[sku] for sku in columns])
    return rows, columns, blocks


class _Joining:
    """The sets of one fold, which the steps of the constructor join."""

    def __init__(self, evidence: FoldEvidence) -> None:
        self._evidence = evidence
        self._vectors, self._cuts = evidence.pictures.vectors, evidence.pictures.cuts
        self.groups = evidence.by_verdicts.copy()
        self._join_variants()
        self._join_identifiers()
        self._join_pictures(evidence.links)
        self._join_words_alone()

    def _join_variants(self) -> None:
        """Join what gtins cannot keep apart: products with one gtin, and the variants of an item
        group, which have gtins of their own: of one colour, or, where no colour is known, with
        pictures that agree."""
        for name, skus in self._evidence.sharing:
            if self._joins_gtins(name, skus):
                self.groups.join_all(skus)
        self._join_pictures([
            WordLink(("", ""), skus, skus, is_telling=True)
            for name, skus in self._evidence.sharing
            if name == "item_group" and not self._joins_gtins(name, skus)
        ])  # fmt: skip

    def _joins_gtins(self, name: str, skus: Sequence[str]) -> bool:
        """Whether products that share this identifier are one whatever their gtins are."""
        names_colour = self._evidence.identifiers[skus[0]].names_colour
        return name == "gtin" or (name == "item_group" and names_colour)

    def _join_identifiers(self) -> None:
        """Keep different gtins apart, and join products that share another identifier."""
        for sku, each in self._evidence.identifiers.items():
            if each.gtin is not None:
                self.groups.label(sku, each.gtin)
        for name, skus in self._evidence.sharing:
            if not self._joins_gtins(name, skus):
                self.groups.join_all(skus)

    def _join_pictures(self, links: Sequence[WordLink]) -> None:
        """Join products whose words and pictures agree, where pairs are kept apart nearest first.

        Elsewhere the order is irrelevant, and a few of the pairs are enough.
        """
        for part in connected(links, self.groups):
            skus = sorted({sku for link in part for sku in (*link.first, *link.second)})
            constrained = any(self.groups.is_constrained(sku) for sku in skus)
            if not constrained and sum(map(_pairs, part)) <= FEW_PAIRS:
                self._join_few(part)
                continue
            place_of = {sku: place for place, sku in enumerate(skus)}
            pairs = [pair for link in part for pair in self._agreeing(link, place_of, constrained)]
            join_nearest_first(self.groups, skus, pairs)

    def _join_few(self, links: Sequence[WordLink]) -> None:
        """Join the products of a few pairs that agree; nothing keeps them apart, so that the order
        is irrelevant."""
        cuts, products = self._cuts, self._evidence.products
        for link in links:
            generic = self._is_generic(link)
            for place, sku in enumerate(link.first):
                for other in link.first[place + 1 :] if link.within else link.second:
                    if not (sku in self._vectors and other in self._vectors):
                        continue
                    a, b = products[sku].category, products[other].category
                    cut = cuts.cut(a if a == b else None, generic=generic)
                    if self._evidence.pictures.distance(sku, other) <= cut + ROUNDING:
                        self.groups.join(sku, other)

    def _agreeing(
        self, link: WordLink, place_of: Mapping[str, int], all_: bool
    ) -> Iterator[NearPairs]:
        """Pairs of a link whose pictures agree, by the places of their products.

        All of them, or enough to connect the same products: at most one for each product.
        """
        rows, columns, blocks = compared(self._evidence, link)
        products = self._evidence.products
        second = [products[sku] for sku in columns]
        row_places, places = (
            np.array([place_of[sku] for sku in side], np.int32) for side in (rows, columns)
        )
        if not all_ and len(rows) * len(columns) > MANY_PAIRS:
            star = self._star(link, rows, columns, row_places, places)
            if star is not None:
                yield star
                return
        offset = 0 if link.within else len(rows)
        part = np.arange(offset + len(columns))  # the number of the part that a product is in
        for start, distances in blocks:
            first = [products[sku] for sku in rows[start : start + len(distances)]]
            near = distances <= self._matrix(link, first, second) + ROUNDING
            if link.within:
                near = np.triu(near, start + 1)
            if not all_:
                near = connecting(near, start, offset, part)
            one, other = np.nonzero(near)
            yield NearPairs(
                distances[one, other].round(DECIMALS), row_places[one + start], places[other]
            )

    def _star(
        self,
        link: WordLink,
        rows: Sequence[str],
        columns: Sequence[str],
        row_places: NDArray[np.int32],
        places: NDArray[np.int32],
    ) -> NearPairs | None:
        """Pairs of the first product of each side with all of the other side, if all their pictures
        agree, so that a thousand equal listings are not a million pairs; else None."""
        products = self._evidence.products
        found: list[NearPairs] = []
        sides = [(rows[0], columns, row_places[:1], places)]
        if not link.within:
            sides.append((columns[0], rows, places[:1], row_places))
        for first, others, place, other_places in sides:
            [distances] = nearest_distances(
                [self._vectors[first]], [self._vectors[sku] for sku in others]
            )
            [cuts] = self._matrix(link, [products[first]], [products[sku] for sku in others])
            if (distances > cuts + ROUNDING).any():
                return None
            own = np.repeat(place, len(others))
            found.append(NearPairs(distances.round(DECIMALS), own, other_places))
        return NearPairs(
            np.concatenate([each.distances for each in found]),
            np.concatenate([each.one for each in found]),
            np.concatenate([each.other for each in found]),
        )

    def _matrix(
        self, link: WordLink, first: Sequence[Product], second: Sequence[Product]
    ) -> Distances:
        return self._cuts.matrix(first, second, generic=self._is_generic(link))

    def _is_generic(self, link: WordLink) -> bool:
        return not link.is_telling and any(map(is_generic, link.keys))

    def _join_words_alone(self) -> None:
        """Join products with the same telling words if pictures are missing.

        If the products that have pictures are several groups, the others could belong to any, and
        are joined among themselves only.
        """
        telling = [link for link in self._evidence.links if not any(map(is_generic, link.keys))]
        if all(sku in self._vectors for link in telling for sku in (*link.first, *link.second)):
            return
        parts = connected(telling, UnionFind())
        pictured = [
            {
                self.groups.find(sku)
                for link in part for sku in (*link.first, *link.second) if sku in self._vectors
            }
            for part in parts
        ]  # fmt: skip
        for part, groups in zip(parts, pictured, strict=True):
            for link in part:
                sides = [
                    [sku for sku in side if len(groups) < 2 or sku not in self._vectors]
                    for side in (link.first, link.second)
                ]
                if all(sides) and any(sku not in self._vectors for side in sides for sku in side):
                    self.groups.join_all(sorted({sku for side in sides for sku in side}))


def _pairs(link: WordLink) -> int:
    """The pairs of a link, those of equal skus and of both directions included."""
    return len(link.first) * len(link.second)


def _not_tried(
    products: Mapping[str, Product], identities: Identities, budget: PairBudget
) -> Iterator[str]:
    # More than MAX_WORDS words, with what separates them, have at least twice as many characters.
    long = (sku for sku, product in products.items() if len(product.title) > 2 * MAX_WORDS)
    if count := sum(is_too_long(identities[sku]) for sku in long):
        titles = "title has" if count == 1 else "titles have"
        yield (
            f"{count:,} {titles} more than {MAX_WORDS} words; typing errors were not looked for in "
            "them"
        )
    if budget.exceeded:
        yield "typing errors were not looked for in all titles, because too many are alike"


def _sharing(own: Mapping[str, Identifiers]) -> list[tuple[str, tuple[str, ...]]]:
    """The products (skus in order) that share an identifier, with its field, the strongest
    first."""
    sharing: dict[tuple[int, str, str], list[str]] = {}
    for sku, each in own.items():
        for strength, name in enumerate(IDENTIFIERS):
            if (value := getattr(each, name)) is not None:
                sharing.setdefault((strength, name, value), []).append(sku)
    return [(name, tuple(skus)) for (_, name, _), skus in sorted(sharing.items()) if len(skus) > 1]
