"""The rows of events of a search that was answered: always what it showed, and its query where the
key allows that."""

from __future__ import annotations

from app.api.requests import Options, SearchQuery, SimilarParameters
from app.operations.api_keys import ApiKey
from app.operations.search_events import RequestRow
from app.types import SearchResult

BEYOND = ("region", "also", "not_like", "not_text", "cursor", "vector")
"""Fields without which a query would be another one, and which are not recorded: with one of them,
a query cannot be asked again, and nothing of it is kept."""


def search_row(
    asked: Options, result: SearchResult, query_id: str, skipped: int, key: ApiKey
) -> RequestRow | None:
    """A search as it is recorded; None if the key records nothing. `skipped` counts the products of
    the pages before."""
    if key.records == "nothing":
        return None
    query: dict[str, object] = {}
    if key.records == "queries" and not any(getattr(asked, name, None) for name in BEYOND):
        query = {
            "words": asked.text,
            "sku": getattr(asked, "sku", None),
            "photo_id": getattr(asked, "photo_id", None),
            "filters": asked.filters,
        }
    return _row(_kind(asked), asked.k, result, query_id, skipped, query)


def similar_row(
    sku: str, asked: SimilarParameters, result: SearchResult, query_id: str, key: ApiKey
) -> RequestRow | None:
    """A list of similar products as it is recorded; None if the key records nothing."""
    if key.records == "nothing":
        return None
    kept = key.records == "queries"
    query: dict[str, object] = {"sku": sku, "filters": asked.filter} if kept else {}
    return _row("sku", asked.k, result, query_id, 0, query)


def _row(
    kind: str, k: int, result: SearchResult, query_id: str, skipped: int, query: dict[str, object]
) -> RequestRow:
    folded = [fold.product.sku for match in result.matches for fold in match.folded]
    return RequestRow(
        query_id, kind, k, skipped, [match.product.sku for match in result.matches], folded,
        result.plan.model, result.plan.path, **query,  # type: ignore[arg-type]
    )  # fmt: skip


def _kind(asked: Options) -> str:
    """What was searched by: photo, sku, vector or text, or one of the first with text."""
    by = "photo"
    if isinstance(asked, SearchQuery):
        if asked.sku is not None:
            by = "sku"
        elif asked.vector is not None:
            by = "vector"
        elif asked.photo_id is None and not asked.also:
            return "text"
    return by if asked.text is None else f"{by}+text"
