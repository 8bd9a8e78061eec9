"""Why a page has fewer products than requested: counts each cause by itself, and words it.

A short page is complete, so that what it returned and dropped is known without counting. Only what
the conditions of the query exclude is counted, up to `match_counts.COUNT_LIMIT` products each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.db.queries import match_counts, nearest, shared_pictures
from app.db.queries.full_text import WordQuery
from app.db.queries.nearest import FilterClause
from app.search.dedup import LIKE_MATCH, LIKE_QUERY, UNWANTED_WORD, DedupResult
from app.search.retrieval import RetrievalRequest
from app.search.shared_pictures import SharedPicture
from app.types import ALREADY_SHOWN, Count, Query, Shortfall


@dataclass(frozen=True, slots=True)
class ShortPage:
    """A page with fewer products than requested, and the request it answers.

    `words` are the words that every product must have one of; None if words exclude none. `earlier`
    are the ids of products that are not to be returned again. `cut` is whether the minimum
    similarity ended the page, `stopped` after how many products it was given up (0: it was not).
    `shared` are the pictures of which one product only was retrieved.
    """

    request: RetrievalRequest
    deduplicated: DedupResult
    words: WordQuery | None
    earlier: Sequence[int]
    cut: bool
    stopped: int
    shared: Sequence[SharedPicture] = ()


def count_causes(page: ShortPage) -> Shortfall:
    """The causes of a short page, counted in the snapshot of the search."""
    connection, model = page.request.connection, page.request.model
    clause = nearest.filter_clause(page.request.filters)
    matching = match_counts.count(connection, model, clause, page.words)
    words = filters = None
    if page.words is not None:
        words = matching
        if clause.condition:
            words = match_counts.count(connection, model, nearest.EVERYTHING, page.words)
    if clause.condition:
        filters = matching
        if page.words is not None:
            filters = match_counts.count(connection, model, clause)
    everything = match_counts.count(connection, model, clause, page.words, searchable=False)
    earlier = match_counts.count_given(connection, model, clause, page.words, page.earlier)
    taken = _taken_away(page.deduplicated)
    same_picture = _same_picture(page, clause)
    reached = len(page.deduplicated.kept) + sum(taken.values()) + earlier + same_picture.products
    below = 0 if not page.cut or page.stopped else max(matching.products - reached, 0)
    return Shortfall(
        returned=len(page.deduplicated.kept),
        matching=matching,
        words=words,
        filters=filters,
        without_picture=_difference(everything, matching),
        below_minimum=Count(below, matching.more and page.cut),
        same_picture=same_picture,
        earlier=earlier,
        gave_up_after=page.stopped,
        **taken,
    )


def all_returned(returned: int, *, filtered: bool) -> Shortfall:
    """The shortfall of a page that returned every product that matches, without counting."""
    count = Count(returned)
    return Shortfall(returned, count, filters=count if filtered else None, without_picture=None)


def given_up(
    deduplicated: DedupResult, retrieved: int, earlier: int, *, filtered: bool
) -> Shortfall:
    """The shortfall of a page that was given up after so many products, all of which match: more
    do, and counting them would take longer than the page. `earlier` are those on earlier pages."""
    more = Count(retrieved, more=True)
    return Shortfall(
        len(deduplicated.kept), more, None, more if filtered else None, None, Count(0),
        same_picture=Count(0), earlier=earlier, gave_up_after=retrieved,
        **_taken_away(deduplicated),
    )  # fmt: skip


def shortfall_text(short: Shortfall, query: Query, hints: Sequence[str] = ()) -> str:
    """Why a page is short, in sentences; `hints` are further reasons."""
    sentence = _sentence(short, query)
    return " ".join(map(_as_sentence, (sentence, *hints)))


def gave_up_after(products: int, query: Query) -> str:
    """The hint that a page was given up after so many products."""
    near = query.near_query is not None or query.near_match is not None
    remedy = "ask for smaller distances" if near else "the next page goes on after them"
    return (
        f"the search for more stopped after {products:,} products, nearly all of which were "
        f"dropped or folded; {remedy}"
    )


def _as_sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}{'' if text.endswith('?') else '.'}"


def _taken_away(deduplicated: DedupResult) -> dict[str, int]:
    """How many products were folded or dropped, by the field of `Shortfall`."""
    rules = {
        "unwanted": UNWANTED_WORD, "like_query": LIKE_QUERY, "like_match": LIKE_MATCH,
        "already_shown": ALREADY_SHOWN,
    }  # fmt: skip
    dropped = [drop.rule for drop in deduplicated.dropped]
    folded = sum(len(folded) for _, folded in deduplicated.kept)
    return {"folded": folded} | {name: dropped.count(rule) for name, rule in rules.items()}


def _same_picture(page: ShortPage, clause: FilterClause) -> Count:
    """The products that were not retrieved because they only show a shared picture."""
    if not page.shared:
        return Count(0)
    hidden = [each.picture_id for each in page.shared]
    standing = [each.hit.product_id for each in page.shared if each.hit is not None]
    return shared_pictures.count_only_showing(
        page.request.connection, page.request.model, clause, hidden, [*standing, *page.earlier]
    )


def _difference(all_: Count, part: Count) -> Count:
    """The products of a count that are not in a part of it; none can be told from two limits."""
    return Count(max(all_.products - part.products, 0), all_.more and not part.more)


def _sentence(short: Shortfall, query: Query) -> str:
    """The conditions with their counts, then what was taken away."""
    minimum = query.min_similarity
    below = short.below_minimum.products or short.below_minimum.more
    similar_enough = short.matching.products - short.below_minimum.products
    taken = _taken_texts(short)
    text = _condition(short, query, only="" if taken or below else "only ")
    if below and minimum is not None:
        number = f"only {similar_enough:,}" if similar_enough else "none"
        text = (
            f"{text}; {number} of them"
            if short.words or short.filters
            else (f"{number} of {short.matching} {_products(short.matching)}")
        )
        to_what = "this part of the photo" if query.region is not None else "the query"
        text += f" {_are(similar_enough)} at least as similar to {to_what} as {_decimals(minimum)}"
    if taken:
        text += f"; of these, {_joined(taken)}"
    without = short.without_picture
    if without and (without.products or without.more):
        text += f"; {without} {'more ' if short.matching.products else ''}{_have(without)} no"
        text += " picture with an embedding under the active model"
    return text


def _condition(short: Shortfall, query: Query, *, only: str) -> str:
    """How many products meet the conditions; `only` stands before the number if nothing else makes
    the page short."""
    matching, words, filters = short.matching, short.words, short.filters
    these = "these words" if len((query.words or "").split()) == 1 else "any of these words"
    if words is not None and filters is not None:
        if not words.products:
            rest = f"; {filters} {_match(filters)} these filters" if filters.products else ""
            return f"no products have {these}{rest}"
        passing = _passing(matching, words)
        return f"{words} {_products(words)} {_have(words)} {these}, {passing}"
    if words is not None:
        if not words.products:
            return f"no products have {these}"
        return f"{only}{words} {_products(words)} {_have(words)} {these}"
    if filters is not None:
        if not filters.products:
            return "no products match these filters"
        pictured = " with an embedded picture" if short.without_picture is None else ""
        return f"{only}{filters} {_products(filters)}{pictured} {_match(filters)} these filters"
    if not matching.products:
        return "no products have a picture with an embedding under the active model"
    having = f"{_have(matching)} a picture with an embedding under the active model"
    return f"{only}{matching} {_products(matching)} {having}"


def _passing(matching: Count, words: Count) -> str:
    if not matching.products:
        none = "none of them passes" if words != Count(1) else "which does not pass"
        return f"{none} the filters"
    if matching == words and not words.more:
        return "all of which pass the filters" if words.products > 1 else "which passes the filters"
    passes = "passes" if matching == Count(1) else "pass"
    return f"{matching} of them {passes} the filters"


def _taken_texts(short: Shortfall) -> list[str]:
    causes = (
        (short.folded, "folded into others"),
        (short.like_query, "the same photo as the query"),
        (short.like_match, "too much like better matches"),
        (short.already_shown, "the same as products shown before"),
        (short.earlier, "shown before or asked with"),
    )
    taken = [f"{count:,} {_were(count)} {text}" for count, text in causes if count]
    if short.same_picture.products:
        count = short.same_picture
        taken.insert(0, f"{count} {_have(count)} the same picture as a match")
    if short.unwanted:
        taken.insert(0, f"{short.unwanted:,} {_were(short.unwanted)} left out for an excluded word")
    return taken


def _joined(texts: Sequence[str]) -> str:
    *first, last = texts
    return f"{', '.join(first)} and {last}" if first else last


def _products(count: Count) -> str:
    return "product" if count == Count(1) else "products"


def _have(count: Count) -> str:
    return "has" if count == Count(1) else "have"


def _match(count: Count) -> str:
    return "matches" if count == Count(1) else "match"


def _are(number: int) -> str:
    return "is" if number <= 1 else "are"


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def _decimals(similarity: float) -> str:
    """Two decimals, or four if two would round."""
    return f"{similarity:.4f}".removesuffix("00")
