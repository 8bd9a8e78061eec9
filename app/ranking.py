"""From candidates to matches: pure functions over plain numbers, without a database.

A path that looks at part of the catalogue knows how far it looked: rows at least as far as
`seen_to` may have been left out. What lies nearer is certain on an exact path and with a flat
index; with an approximate index it is so but for the recall it was measured with.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.types import Hit

TOLERANCE = 2e-4
"""Cosine distance by which FAISS (float32 or float16 rows) and PostgreSQL's `<=>` may differ."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The best hit of each product that was looked at, best first, and how far was looked.

    `seen_to` is the distance (0 to 2) at and beyond which pictures may be missing; None: none are.
    """

    hits: tuple[Hit, ...]
    seen_to: float | None
    looked_at: int = 0
    vanished: int = 0


def settled(candidates: Candidates, k: int) -> bool:
    """Whether the first `k` hits cannot change by looking further.

    A picture not looked at lies at `seen_to` or beyond, so only a k-th hit strictly nearer is safe.
    An approximate index may also have passed over nearer ones, as rarely as its recall says.
    """
    if candidates.seen_to is None:
        return True
    hits = candidates.hits
    return len(hits) >= k and hits[k - 1].distance < candidates.seen_to
