"""One page of matches: asks the paths and the words for more until the page is full.

What is dropped or folded makes room for the next product, so a page is short only if there are no
more products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan

from app.config import Settings
from app.db.queries import embeddings, full_text, nearest, products, verdicts
from app.db.queries.nearest import Candidates
from app.index.file_store import IndexFiles
from app.search.dedup import DedupResult, ScoredHit, asks_for_shape, shape
from app.search.fusion import fused
from app.search.planner import find
from app.search.retrieval import Reason, RetrievalRequest, RetrievalResult
from app.types import Hit, Query

GROWTH_FACTOR = 4
"""How many times as many are asked for when a page was not filled."""

MAX_CANDIDATES = 20_000
"""Products a page looks at; one that drops nearly all of them must not load the whole catalogue."""

ROUNDING = 1e-6
"""By how much PostgreSQL's float32 sums may miss the similarity of a picture to itself."""

DEEPER = 4
FUSED_LEAST = 100
"""Fused lists are read deeper than the page, so that they have something in common."""


@dataclass(frozen=True, slots=True)
class Page:
    """The matches of a page before their details, and how they were found.

    `words` says whether the words of the catalogue took part, and `cut` whether there are more
    products, all less similar than the query wants. `stopped` is how many products were looked at
    where the search for more was given up; 0 where it was not.
    """

    shaped: DedupResult
    answer: RetrievalResult
    words: bool
    cut: bool = False
    stopped: int = 0


@dataclass(frozen=True, slots=True)
class _PageHits:
    """Hits with their scores, best first; whether there are no others, and whether that is only
    because they would be less similar than the query wants."""

    answer: RetrievalResult
    hits: Sequence[tuple[Hit, float]]
    everything: bool
    cut: bool = False


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A question with everything a page of its answers needs.

    `ask.vector` counts only if `by_vector`; `by_words` are the words and their weight beside it.
    """

    ask: RetrievalRequest
    query: Query
    by_vector: bool
    by_words: tuple[str, float] | None
    files: IndexFiles
    settings: Settings


def page(asked: PageRequest) -> Page:
    """The first k products that the query wants to see."""
    shown = _shown(asked)
    ids = tuple(each.hit.product_id for each in shown)
    asked = replace(asked, ask=replace(asked.ask, excluded=(*asked.ask.excluded, *ids)))
    size = asked.ask.k
    if asks_for_shape(asked.query):
        size = 2 * size + 20
    while True:
        found = _found(asked, size)
        shaped = _shaped(asked, found.hits, shown)
        full = len(shaped.kept) >= asked.ask.k
        if found.everything or full or size >= MAX_CANDIDATES:
            stopped = 0 if found.everything or full else len(found.hits)
            return Page(
                _cut(shaped, asked.ask.k), found.answer, asked.by_words is not None,
                found.cut and not full, stopped,
            )  # fmt: skip
        size = min(size * GROWTH_FACTOR, max(size, MAX_CANDIDATES))


def _found(asked: PageRequest, size: int) -> _PageHits:
    """The first `size` hits that are as similar as the query wants."""
    if asked.by_words is None:
        answer = find(replace(asked.ask, k=size), asked.files, asked.settings)
        near = answer.candidates.hits
        found = _PageHits(answer, [(hit, hit.similarity) for hit in near], len(near) < size)
    else:
        found = _fused(asked, max(DEEPER * size, FUSED_LEAST), *asked.by_words)
    least = asked.query.min_similarity
    return found if least is None else _similar(found, least)


def _similar(found: _PageHits, least: float) -> _PageHits:
    """What is at least so similar.

    The nearest come first, so that once one of them is less similar all that are similar enough are
    known, also those that words would find further down.
    """
    near = found.answer.candidates.hits
    beyond = bool(near) and near[-1].similarity < least - ROUNDING
    hits = [(hit, score) for hit, score in found.hits if hit.similarity >= least - ROUNDING]
    return replace(found, hits=hits, everything=found.everything or beyond, cut=beyond)


def _fused(asked: PageRequest, size: int, said: str, weight: float) -> _PageHits:
    """What the words of the catalogue find, fused with what the vector finds if there is one."""
    ask, only = asked.ask, nearest.filter_clause(asked.ask.filters)
    first = dict(
        full_text.find(ask.connection, ask.model, said, only, k=size, excluded=ask.excluded)
    )
    hits = {id_: Hit(id_, picture, nan) for id_, picture in first.items()}
    lists: list[tuple[float, Sequence[int]]] = [(weight, list(first))]
    answer = RetrievalResult(
        Candidates((), None, len(first)),
        "words",
        Reason("words", "the words of the catalogue"),
    )
    everything = len(first) < size
    if asked.by_vector:
        answer = find(replace(ask, k=size), asked.files, asked.settings)
        near = answer.candidates.hits
        compared = full_text.nearest_hits(ask.connection, ask.model, ask.vector, list(first))
        hits |= {hit.product_id: hit for hit in (*compared, *near)}
        lists.append((1.0 - weight, [hit.product_id for hit in near]))
        everything = everything and len(near) < size
    scores = fused(lists)
    return _PageHits(answer, [(hits[id_], score) for id_, score in scores.items()], everything)


def _shown(asked: PageRequest) -> list[ScoredHit]:
    """The products of earlier pages, by the picture that is nearest to the query."""
    connection, model = asked.ask.connection, asked.ask.model
    ids = list(products.ids(connection, asked.query.shown).values())
    if not ids:
        return []
    if asked.by_vector:
        hits = full_text.nearest_hits(connection, model, asked.ask.vector, ids)
    else:
        hits = [Hit(*pair, nan) for pair in full_text.first_pictures(connection, model, ids)]
    return _known(asked, [(hit, hit.similarity) for hit in hits])


def _shaped(
    asked: PageRequest, hits: Sequence[tuple[Hit, float]], shown: Sequence[ScoredHit]
) -> DedupResult:
    if not asks_for_shape(asked.query):
        known = _known(asked, hits[: asked.ask.k])
        return DedupResult(tuple((each, ()) for each in known))
    found = _known(asked, hits)
    skus = [each.product.sku for each in (*found, *shown)]
    decided = verdicts.related(asked.ask.connection, skus) if asked.query.fold else []
    typo = asked.settings.typo_similarity
    return shape(found, asked.query, shown=shown, verdicts=decided, typo=typo)


def _known(asked: PageRequest, hits: Sequence[tuple[Hit, float]]) -> list[ScoredHit]:
    """Hits with what is known of their products, and vectors where they are compared."""
    connection, model = asked.ask.connection, asked.ask.model
    known = products.by_id(connection, [hit.product_id for hit, _ in hits])
    vectors = {}
    if asked.query.near_match is not None:
        vectors = embeddings.vectors(connection, model, [hit.picture_id for hit, _ in hits])
    return [
        ScoredHit(hit, known[hit.product_id], score, vectors.get(hit.picture_id))
        for hit, score in hits
    ]


def _cut(shaped: DedupResult, k: int) -> DedupResult:
    """The first k, and of what was dropped only what the query or one of these drops."""
    beyond = {found.product.sku for found, _ in shaped.kept[k:]}
    dropped = tuple(drop for drop in shaped.dropped if drop.lost_to not in beyond)
    return DedupResult(shaped.kept[:k], dropped)
