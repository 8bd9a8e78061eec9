"""Parts of a set of products of which no two of different parts can be one, or read alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from app.duplicates.identifiers import identifiers
from app.duplicates.normalization import Identities
from app.duplicates.union_find import UnionFind
from app.types import Product, Verdict

ANY_BRAND = "|any||any"
"""An identity key whose brand and colour are the same for all products: identifiers that are equal
only within a brand or a colour then count as shared, which makes parts larger, never too small."""


def parts(products: Sequence[Product], verdicts: Sequence[Verdict]) -> list[list[Product]]:
    """The products (of distinct skus) by parts, each in the order given.

    Two products are in one part if their words may agree (their brand, category and colour do), if
    they share an identifier, if a verdict names both, or through others. What is decided about the
    products of one part does not depend on those of the others.
    """
    by_sku = {each.sku: each for each in products}
    together = [*Identities(by_sku).may_agree()]
    sharing = [*_sharing(products)]
    if sharing or verdicts:
        pairs = ([verdict.sku_a, verdict.sku_b] for verdict in verdicts)
        return _joined(products, [*together, *sharing, *pairs])
    part_of = {sku: skus[0] for skus in together for sku in skus}  # these share no product
    found: dict[str, list[Product]] = {}
    for each in products:
        found.setdefault(part_of.get(each.sku, each.sku), []).append(each)
    return list(found.values())


def _joined(products: Sequence[Product], together: Sequence[Sequence[str]]) -> list[list[Product]]:
    """The products by parts, where these skus are in one part."""
    groups = UnionFind()
    for skus in together:
        for sku in skus[1:]:
            groups.join(skus[0], sku)
    found: dict[str, list[Product]] = {}
    for each in products:
        found.setdefault(groups.find(each.sku), []).append(each)
    return list(found.values())


def _sharing(products: Iterable[Product]) -> Iterator[list[str]]:
    """The skus of products with the same identifier."""
    by_value: dict[tuple[str, str], list[str]] = {}
    for each in products:
        if each.attributes:
            own = identifiers(each, ANY_BRAND)
            for name in ("gtin", "mpn", "item_group"):
                if (value := getattr(own, name)) is not None:
                    by_value.setdefault((name, value), []).append(each.sku)
    yield from by_value.values()
