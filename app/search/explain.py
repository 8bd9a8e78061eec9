"""Plans: how an answer came about, how long each stage took, and why it is shorter than asked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.types import Dropped, Match, Model, Plan, Product, Query, Vector

if TYPE_CHECKING:
    from app.search.retrieval import RetrievalResult  # which loads the index


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """An answer with the details of its products; `lag` is how many seconds a replica is behind,
    and `cut` whether the minimum similarity ended it."""

    matches: tuple[Match, ...]
    answer: RetrievalResult
    model: Model
    vector: Vector
    lag: float | None
    dropped: tuple[Dropped, ...] = ()
    words: str | None = None
    hints: tuple[str, ...] = ()
    cut: bool = False


class StageTimer:
    """Milliseconds by stage; `waited_s` is how long the search waited before it began."""

    def __init__(self, waited_s: float = 0.0) -> None:
        self.ms: dict[str, float] = {"wait": round(waited_s * 1000, 3)} if waited_s else {}
        self._began = time.perf_counter() - waited_s

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        began = time.perf_counter()
        yield
        self.ms[name] = round((time.perf_counter() - began) * 1000, 3)

    def total(self) -> dict[str, float]:
        """The stages, and `total`: all the time until now."""
        return self.ms | {"total": round((time.perf_counter() - self._began) * 1000, 3)}


def plan_of(found: SearchOutcome, query: Query, clock: StageTimer) -> Plan:
    """The plan that goes with an answer to a query."""
    answer = found.answer
    return Plan(
        path=answer.path,
        reason=answer.reason.text,
        reason_code=answer.reason.code,
        model=found.model.name,
        build=answer.build.id if answer.build else None,
        built_at=answer.build.finished_at if answer.build else None,
        delta_rows=answer.delta_rows,
        candidates=answer.candidates.looked_at,
        vanished=answer.candidates.vanished,
        shortfall=_shortfall(found, query),
        words=found.words,
        replica_lag_s=found.lag,
        ms=clock.total(),
    )


def stopped(products: int) -> Iterator[str]:
    """That a page was given up because nearly everything is dropped or folded."""
    if products:
        yield (
            f"the search for more stopped after {products} products, nearly all of which were "
            "dropped or folded; ask for smaller distances"
        )


def why_dropped(drop: Dropped, *, decimals: int) -> str:
    """The rule by which a product was dropped, the match it lost to, and the distance."""
    better = "" if drop.lost_to is None else f", {drop.lost_to}"
    distance = "" if drop.distance is None else f" (distance {drop.distance:.{decimals}f})"
    return f"{drop.rule}{better}{distance}"


def price_text(product: Product) -> str:
    """The price with two decimals and its currency; empty where there is no price."""
    return "" if product.price is None else f"{product.price:.2f} {product.currency or ''}".strip()


def _shortfall(found: SearchOutcome, query: Query) -> str | None:
    """Why fewer came back than were asked for; None if they did not."""
    count = len(found.matches)
    if count >= query.k:
        return None
    others = "other " if query.sku is not None or query.shown else ""
    folded = sum(len(match.folded) for match in found.matches)
    less = [f"{folded} were folded"] * (folded > 0)
    less += [f"{len(found.dropped)} were dropped"] * bool(found.dropped)
    because = f" ({', '.join(less)})" if less else ""
    products = "product" if count == 1 else "products"
    only = f"only {count} {others}{products} {_passed(found, query, count == 1)}{because}"
    return "; ".join((only, *found.hints))


def _passed(found: SearchOutcome, query: Query, one: bool) -> str:
    """What holds for the products that came, and for no others; said of one, or of several."""
    match, have, are = ("matches", "has", "is") if one else ("match", "have", "are")
    if found.cut:
        also = f"{match} the filter and " if query.filters else ""
        return f"{also}{are} at least as similar as {_decimals(query.min_similarity)}"
    if found.answer.path == "words":
        what = f"{have} these words in the catalogue, and a picture"
    else:
        what = f"{match} the filter" if query.filters else f"{have} a picture"
    return f"{what} with an embedding under the active model"


def _decimals(similarity: float | None) -> str:
    """Two decimals, or four where two do not say it all."""
    return f"{similarity:.4f}".removesuffix("00")
