"""One match for a picture that very many products show, such as a placeholder.

All of them are as similar to a query as the picture is, so they would fill a page. The first one
stands for them, and retrieval goes on without the picture: a product that shows another one too is
found by that.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass
from itertools import islice

from app.search.page_data import PageData
from app.types import Count, Hit

MAX_LISTED = 12
"""Products that are listed under a match because they show its picture."""


@dataclass(frozen=True, slots=True)
class SharedPicture:
    """A picture, the hit that stands for all products with it, how many products show it, and the
    ids of the next ones. The hit is None if an earlier page has shown the picture."""

    picture_id: int
    hit: Hit | None
    products: Count
    others: tuple[int, ...]


def leading(hits: Sequence[Hit], count: int) -> set[int]:
    """The ids of the first `count` pictures of hits. The matches of a page need no more, and where
    many products share each picture, every further picture would cost a retrieval."""
    pictures = dict.fromkeys(hit.picture_id for hit in hits)
    return set(islice(pictures, count))


def find(
    data: PageData,
    hits: Sequence[Hit],
    pictures: Set[int],
    most: int,
    shown: Collection[int],
) -> tuple[SharedPicture, ...]:
    """Those of these pictures (ids) that several of the hits (nearest first), and more than `most`
    products, show.

    `shown` are the ids of pictures of earlier pages, of which one hit is enough.
    """
    once, repeated = set[int](), set(shown)
    for hit in hits:
        (repeated if hit.picture_id in once else once).add(hit.picture_id)
    asked = sorted(repeated & once & pictures)
    counts = data.shown_by_more(asked, most) if asked else {}
    return tuple(_shared(hits, picture_id, counts[picture_id], shown) for picture_id in counts)


def merged(hits: Sequence[Hit], shared: Sequence[SharedPicture]) -> tuple[Hit, ...]:
    """Hits of other pictures with those that stand for shared pictures, nearest first."""
    own = {each.hit.product_id: each.hit for each in shared if each.hit is not None}
    others = (hit for hit in hits if hit.product_id not in own)
    return tuple(sorted([*own.values(), *others], key=lambda hit: (hit.distance, hit.product_id)))


def _shared(
    hits: Sequence[Hit], picture_id: int, products: Count, shown: Collection[int]
) -> SharedPicture:
    first, *others = (hit for hit in hits if hit.picture_id == picture_id)
    stands = None if picture_id in shown else first
    listed = tuple(hit.product_id for hit in others[:MAX_LISTED])
    return SharedPicture(picture_id, stands, products, listed)
