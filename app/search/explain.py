"""Builds the plan of a result: stage times, and why fewer products came back than requested."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.types import (
    Dropped,
    Match,
    Model,
    Plan,
    Product,
    Query,
    UnknownValue,
    Vector,
    WordsReading,
)

if TYPE_CHECKING:
    from app.search.retrieval import RetrievalResult  # importing it loads the index


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """Matches with their details, and everything the plan is built from.

    `lag` is how many seconds a replica is behind. `words` is what read the words, `hints` are
    further reasons for a shortfall, and `cut` is whether the minimum similarity ended the page.
    """

    matches: tuple[Match, ...]
    retrieval: RetrievalResult
    model: Model
    vector: Vector
    lag: float | None
    dropped: tuple[Dropped, ...] = ()
    words: str | None = None
    hints: tuple[str, ...] = ()
    cut: bool = False
    reading: WordsReading | None = None


class StageTimer:
    """Milliseconds by stage; `waited_s` is how long the search waited for admission."""

    def __init__(self, waited_s: float = 0.0) -> None:
        self.ms: dict[str, float] = {"wait": round(waited_s * 1000, 3)} if waited_s else {}
        self._began = time.perf_counter() - waited_s

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block."""
        began = time.perf_counter()
        yield
        self.ms[name] = round((time.perf_counter() - began) * 1000, 3)

    def total(self) -> dict[str, float]:
        """The stages, and `total`: the time since the search arrived."""
        return self.ms | {"total": round((time.perf_counter() - self._began) * 1000, 3)}


def build_plan(outcome: SearchOutcome, query: Query, timer: StageTimer) -> Plan:
    """The plan of an outcome."""
    retrieval = outcome.retrieval
    return Plan(
        path=retrieval.path,
        reason=retrieval.reason.text,
        reason_code=retrieval.reason.code,
        model=outcome.model.name,
        build=retrieval.build.id if retrieval.build else None,
        built_at=retrieval.build.finished_at if retrieval.build else None,
        delta_rows=retrieval.delta_rows,
        candidates=retrieval.candidates.examined,
        vanished=retrieval.candidates.vanished,
        shortfall=_shortfall(outcome, query),
        words=outcome.words,
        reading=outcome.reading,
        replica_lag_s=outcome.lag,
        ms=timer.total(),
    )


def gave_up_after(products: int) -> str:
    """The hint that a page was given up after so many products."""
    return (
        f"the search for more stopped after {products} products, nearly all of which were "
        "dropped or folded; ask for smaller distances"
    )


def why_dropped(drop: Dropped, *, decimals: int) -> str:
    """The rule by which a product was dropped, the match it lost to, and the distance."""
    better = "" if drop.lost_to is None else f", {drop.lost_to}"
    distance = "" if drop.distance is None else f" (distance {drop.distance:.{decimals}f})"
    return f"{drop.rule}{better}{distance}"


def words_text(plan: Plan) -> str:
    """The sentence that names what searched by the words of the query; empty without words."""
    if plan.words is None:
        return ""
    return f"The words were read by the {plan.words.replace(' and ', ' and the ')}."


def reading_texts(plan: Plan) -> tuple[str, ...]:
    """Sentences that say which values of filters no product has, and which words were corrected,
    ignored, or also searched by synonyms."""
    reading = plan.reading or WordsReading("")
    sentences = [unknown_text(each) for each in plan.unknown]
    sentences += [
        f"No product has the word {each.typed!r}; searched for {each.read_as!r}."
        for each in reading.corrected
    ]
    if reading.ignored:
        words = ", ".join(map(repr, reading.ignored))
        sentences.append(f"Ignored, because no product has it or it is too common: {words}.")
    means: dict[str, list[str]] = {}
    for used in reading.synonyms:
        means.setdefault(used.word, []).append(used.means)
    sentences += [
        f"Also searched for {' and '.join(map(repr, others))} instead of {word!r}."
        for word, others in means.items()
    ]
    return tuple(sentences)


def unknown_text(unknown: UnknownValue) -> str:
    """The sentence about a value of a filter that no product has, with the nearest ones."""
    nearest = f" Nearest: {', '.join(unknown.nearest)}." if unknown.nearest else ""
    return f"No {unknown.column} {unknown.value!r}.{nearest}"


def price_text(product: Product) -> str:
    """The price with two decimals and its currency; empty where there is no price."""
    return "" if product.price is None else f"{product.price:.2f} {product.currency or ''}".strip()


def _shortfall(outcome: SearchOutcome, query: Query) -> str | None:
    """Why fewer products came back than requested; None if k came back."""
    count = len(outcome.matches)
    if count >= query.k:
        return None
    others = "other " if query.sku is not None or query.shown else ""
    folded = sum(len(match.folded) for match in outcome.matches)
    removed = [f"{folded} were folded"] * (folded > 0)
    removed += [f"{len(outcome.dropped)} were dropped"] * bool(outcome.dropped)
    details = f" ({', '.join(removed)})" if removed else ""
    products = "product" if count == 1 else "products"
    condition = _condition(outcome, query, singular=count == 1)
    sentence = f"only {count} {others}{products} {condition}{details}"
    return "; ".join((sentence, *outcome.hints))


def _condition(outcome: SearchOutcome, query: Query, *, singular: bool) -> str:
    """The condition that only the returned products meet, as a verb phrase."""
    match, have, are = ("matches", "has", "is") if singular else ("match", "have", "are")
    if outcome.cut:
        also = f"{match} the filter and " if query.filters else ""
        return f"{also}{are} at least as similar as {_decimals(query.min_similarity)}"
    if outcome.retrieval.path == "words":
        condition = f"{have} these words in the catalogue, and a picture"
    else:
        condition = f"{match} the filter" if query.filters else f"{have} a picture"
    return f"{condition} with an embedding under the active model"


def _decimals(similarity: float | None) -> str:
    """Two decimals, or four if two would round."""
    return f"{similarity:.4f}".removesuffix("00")
