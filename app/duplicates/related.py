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
    """The products (of distinct skus) that may be the same as another one, by parts of two or more.

    Two products are in one part if their words may agree (their brand, category and colour do), if
    they share an identifier, if a verdict names both, or through others. What is decided about the
    products of one part does not depend on those of the others, and a product in none is alone.
    """
    by_sku = {each.sku: each for each in products}
    together = [*Identities(by_sku).may_agree()]
    sharing = [*_sharing(products)]
    if sharing or verdicts:
        pairs = ([verdict.sku_a, verdict.sku_b] for verdict in verdicts)
        together = _joined(by_sku, [*together, *sharing, *pairs])
    return [[by_sku[sku] for sku in skus] for skus in together]


def _joined(known: Iterable[str], together: Sequence[Sequence[str]]) -> list[list[str]]:
    """The known skus that are in one part with others, where these are."""
    groups = UnionFind()
    for skus in together:
        for sku in skus[1:]:
            groups.join(skus[0], sku)
    found: dict[str, list[str]] = {}
    for sku in known:
        found.setdefault(groups.find(sku), []).append(sku)
    return [skus for skus in found.values() if len(skus) > 1]


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
