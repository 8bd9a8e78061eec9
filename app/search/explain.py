"""Builds the plan of a result, and the texts about it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.search.shortfall import shortfall_text
from app.types import (
    Dropped,
    Match,
    Model,
    Plan,
    Product,
    Query,
    RegionMatches,
    Shortfall,
    UnknownValue,
    Vector,
    WordsReading,
)

if TYPE_CHECKING:
    from app.search.retrieval import RetrievalResult  # importing it loads the index


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """Matches with their details, and everything the plan is built from.

    `lag` is how many seconds a replica is behind, `words` is what read the words, and `shortfall`
    is None for a full page.
    """

    matches: tuple[Match, ...]
    retrieval: RetrievalResult
    model: Model
    vector: Vector
    lag: float | None
    dropped: tuple[Dropped, ...] = ()
    words: str | None = None
    shortfall: Shortfall | None = None
    hints: tuple[str, ...] = ()
    """Further reasons for a shortfall, such as an attribute that no product has."""
    regions: tuple[RegionMatches, ...] = ()
    reading: WordsReading | None = None
    not_tried: tuple[str, ...] = ()


class StageTimer:
    """Milliseconds by stage; `waited_s` is how long the search waited for admission."""

    def __init__(self, waited_s: float = 0.0) -> None:
        self.ms: dict[str, float] = {"wait": round(waited_s * 1000, 3)} if waited_s else {}
        self._began = time.perf_counter() - waited_s

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block; blocks with the same name add up."""
        began = time.perf_counter()
        yield
        ms = (time.perf_counter() - began) * 1000
        self.ms[name] = round(self.ms.get(name, 0.0) + ms, 3)

    def add_earlier(self, name: str, seconds: float) -> None:
        """Add a stage that ended before this timer began."""
        if seconds:
            self.ms[name] = round(self.ms.get(name, 0.0) + seconds * 1000, 3)
            self._began -= seconds

    def total(self) -> dict[str, float]:
        """The stages, and `total`: the time since the search arrived."""
        return self.ms | {"total": round((time.perf_counter() - self._began) * 1000, 3)}


def build_plan(outcome: SearchOutcome, query: Query, timer: StageTimer) -> Plan:
    """The plan of an outcome."""
    retrieval, short = outcome.retrieval, outcome.shortfall
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
        shortfall=None if short is None else shortfall_text(short, query, outcome.hints),
        shortfall_counts=short,
        words=outcome.words,
        reading=outcome.reading,
        not_tried=outcome.not_tried,
        replica_lag_s=outcome.lag,
        ms=timer.total(),
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
    """Sentences that say which values of filters no product has, which words were corrected,
    ignored, also searched by synonyms, or excluded, and what was not compared."""
    reading = plan.reading or WordsReading("")
    sentences = [unknown_text(each) for each in plan.unknown]
    sentences += [
        f"No product has the word {each.typed!r}; searched for {each.read_as!r}."
        for each in reading.corrected
    ]
    if reading.ignored:
        known = [word for word in reading.ignored if word not in reading.unknown]
        how = "Read by the model alone" if "model" in (plan.words or "") else "Ignored"
        why = "because no product has it or it is too common"
        sentences += [f"{how}, {why}: {', '.join(map(repr, known))}."] if known else []
        words = ", ".join(map(repr, reading.unknown))
        sentences += [f"Not understood, and ignored: {words}."] if words else []
    means: dict[str, list[str]] = {}
    for used in reading.synonyms:
        means.setdefault(used.word, []).append(used.means)
    sentences += [
        f"Also searched for {' and '.join(map(repr, others))} instead of {word!r}."
        for word, others in means.items()
    ]
    if reading.excluded:
        sentences.append(f"Left out: products with {', '.join(map(repr, reading.excluded))}.")
    sentences += [f"{text[0].upper()}{text[1:]}." for text in plan.not_tried]
    return tuple(sentences)


def unknown_text(unknown: UnknownValue) -> str:
    """The sentence about a value of a filter that no product has, with the nearest ones."""
    nearest = f" Nearest: {', '.join(unknown.nearest)}." if unknown.nearest else ""
    return f"No {unknown.column} {unknown.value!r}.{nearest}"


def similar_number(match: Match) -> str:
    """How many similar listings a match has, such as "1,000+"."""
    return f"{match.similar_count:,}{'+' if match.similar_more else ''}"


def same_picture_text(match: Match) -> str:
    """How many products show the picture of a match, if these are one match; else empty."""
    count = match.same_picture
    return "" if count is None else f"{count} products show this picture"


def price_text(product: Product) -> str:
    """The price with two decimals and its currency; empty where there is no price."""
    return "" if product.price is None else f"{product.price:.2f} {product.currency or ''}".strip()
