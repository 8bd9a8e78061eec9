"""200 products with an index, searched by vectors."""

from __future__ import annotations

from app.bootstrap import App
from app.types import Query, SearchResult
from support.shop import add, numbered, vectors


def fill(app: App) -> None:
    add(app, numbered(200))
    app.indexer.rebuild()


def ask(app: App, seed: int = 1000, k: int = 10) -> SearchResult:
    [vector] = vectors(app, [seed])
    return app.search.search(Query(vector=vector, model_id=1, k=k))


def seen(result: SearchResult) -> list[tuple[str, float, str, bytes]]:
    return [(m.product.sku, m.similarity, m.image, m.thumbnail) for m in result.matches]
