"""Catalogue: searches and changes a catalogue from a program."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from app.bootstrap import App
from app.config import Settings
from app.errors import BadInput, UnsupportedPlatform
from app.library.pictures import GivenPictures, Picture, read_picture
from app.search.filters import parse
from app.types import (
    Build,
    Filters,
    ProductDetails,
    Query,
    Region,
    SearchResult,
    WordsBy,
    WordsLanguage,
)
from ingest.load import LoadOptions, load
from ingest.open_source import OpenSource
from ingest.records import record_row
from ingest.sources import SourceReject, SourceRow

SOURCE = "program"
"""What the record of a run names as the source of an upsert."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A product, or one `image` of it, that was refused; `index` is its place in the call, from
    0."""

    index: int
    sku: str | None
    reason: str
    image: str | None = None


@dataclass(frozen=True, slots=True)
class UpsertResult:
    """How many products an upsert changed, what it refused, and its run for `lookalike undo`."""

    added: int
    updated: int
    unchanged: int
    rejected: tuple[Rejected, ...]
    run: int


def connect(
    database_url: str | None = None,
    *,
    home: str | os.PathLike[str] | None = None,
    model: str | None = None,
    create: bool = False,
) -> Catalogue:
    """Connect to a catalogue; without arguments to that of the command line.

    `database_url`, `home` and `model` replace the settings LOOKALIKE_DATABASE_URL, LOOKALIKE_HOME
    and LOOKALIKE_MODEL. With `create`, tables are made or upgraded and the model is recorded, as
    `lookalike init` does.

    Raises DatabaseUnavailable, with `create` also what `lookalike init` refuses.

    >>> import lookalike
    >>> with lookalike.connect(create=True) as shop:
    ...     shop.search(sku="MUG-1").matches[0].product.title
    'Checked mug, blue'
    """
    if sys.platform == "win32":
        raise UnsupportedPlatform()
    given = {"database_url": database_url, "home": home and Path(home), "model": model}
    changes = {name: value for name, value in given.items() if value is not None}
    app = App(Settings(**changes))  # type: ignore[arg-type]
    try:
        if create:
            app.initialise()
    except BaseException:
        app.close()
        raise
    return Catalogue(app)


class Catalogue:
    """A catalogue that is searched and changed; safe to share between threads.

    All its methods run in the calling thread and return when they are done. They use the cores of
    the machine by themselves: a program needs no thread and no pool of its own, neither of
    connections. It is a context manager; `close` releases connections and child processes.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close connections and child processes; an embedded server keeps running."""
        self._app.close()

    def search(
        self,
        photo: Picture | None = None,
        *,
        sku: str | None = None,
        text: str | None = None,
        k: int = 10,
        filters: Filters | Sequence[str] = (),
        also: Sequence[Picture] = (),
        region: Region | None = None,
        not_like: Sequence[Picture] = (),
        not_text: str | None = None,
        words_by: WordsBy | None = None,
        words_language: WordsLanguage | None = None,
        min_similarity: float | None = None,
        near_query: float | None = None,
        near_match: float | None = None,
        fold: bool = True,
        listings: bool = False,
        objects: bool = True,
        shown: Sequence[str] = (),
        untrusted: bool = False,
    ) -> SearchResult:
        """The `k` products most similar to a photo, a product or words, best first.

        `filters` are conditions as of the command line ("brand=Okari", "price=10..20"), or a
        Filters. `also` are more photos of the same object, `not_like` and `not_text` what results
        should not resemble; `shown` are the skus of earlier pages (`SearchResult.shown`). With
        `untrusted`, photos are decoded in a separate process. The rest is described at Query.

        Raises BadInput and its kinds for an invalid query, Busy if too many searches run at a time,
        NoModel, ModelMismatch, SchemaMismatch and DatabaseUnavailable.

        >>> result = shop.search(photo, k=2, filters=["category=mug"])
        >>> [match.product.sku for match in result.matches]
        ['MUG-2', 'MUG-1']
        >>> result.matches[0].similarity > result.matches[1].similarity
        True
        """
        query = Query(
            picture=None if photo is None else self._read(photo),
            sku=sku,
            words=text,
            k=k,
            filters=filters if isinstance(filters, Filters) else parse(filters),
            untrusted=untrusted,
            more_pictures=tuple(self._read(each) for each in also),
            region=region,
            words_by=words_by,
            words_language=words_language,
            without_pictures=tuple(self._read(each) for each in not_like),
            without_words=not_text,
            shown=tuple(shown),
            fold=fold,
            listings=listings,
            near_query=near_query,
            near_match=near_match,
            min_similarity=min_similarity,
            objects=objects,
        )
        return self._app.search.search(query)

    def search_many(self, queries: Iterable[Query]) -> Iterator[SearchResult]:
        """The results of many queries, in their order; several run at the same time.

        No more queries are taken from the iterable than can run. Raises what `search` raises, at
        the place of the query.

        >>> queries = [lookalike.Query(sku="MUG-1", k=1), lookalike.Query(sku="MUG-2", k=1)]
        >>> [result.matches[0].product.sku for result in shop.search_many(queries)]
        ['MUG-2', 'MUG-1']
        """
        places = self._app.settings.places
        with ThreadPoolExecutor(places, "search") as threads:
            waiting = []
            try:
                for query in queries:
                    waiting.append(threads.submit(self._app.search.search, query))
                    if len(waiting) >= places:
                        yield waiting.pop(0).result()
                while waiting:
                    yield waiting.pop(0).result()
            finally:
                for future in waiting:
                    future.cancel()

    def upsert(self, products: Iterable[Mapping[str, Any]]) -> UpsertResult:
        """Add products, or change those that exist; each is a mapping with the columns of a CSV.

        The key `sku` is required. Of a product that exists, a key that is left out keeps what is
        stored, and None or "" clears it. `images` are bytes, paths or web addresses, and other keys
        are attributes. A product that cannot be stored is refused with a reason and does not stop
        the others. Products are written in batches, and found by the next search. The call is one
        run, which `lookalike undo` takes back.

        Pictures given as bytes stay in memory until the end of the call; pass paths for very many.

        Raises NoModel, DatabaseUnavailable, and BadInput for an argument of another type.

        >>> mug = {"sku": "MUG-3", "title": "Plain mug", "price": 9.5, "images": [photo]}
        >>> shop.upsert([mug]).added
        1
        >>> result = shop.upsert([{"sku": "MUG-3", "price": 8}, {"title": "no sku"}])
        >>> result.updated, [each.reason for each in result.rejected]
        (1, ['no sku'])
        """
        if isinstance(products, Mapping):
            raise BadInput("Products are a list of mappings; put this one in a list.")
        app = self._app
        pictures = GivenPictures(app)
        rows = _rows(products, pictures)
        rejects: list[SourceReject] = []
        report = load(
            app.engine, app.catalog, app.encoders, app.limits, OpenSource(SOURCE, rows, pictures),
            LoadOptions(force=True), rejected=rejects.append,
        )  # fmt: skip
        return UpsertResult(
            report.added,
            report.updated,
            report.unchanged,
            tuple(Rejected(each.line, each.sku, each.reason, each.image) for each in rejects),
            report.run,
        )

    def delete(self, skus: Iterable[str], *, missing_ok: bool = False) -> int:
        """Delete products and the pictures that no other product shows; returns how many.

        All or none: raises UnknownProduct with the skus that no product has, unless `missing_ok`.
        Raises BadInput for a sku that is not in a list.

        >>> shop.delete(["MUG-3"])
        1
        >>> shop.delete(["MUG-3"], missing_ok=True)
        0
        """
        if isinstance(skus, str):
            raise BadInput(f"Skus are a list: [{skus!r}].")
        return self._app.catalog.delete(list(dict.fromkeys(skus)), missing_ok=missing_ok)

    def product(self, sku: str) -> ProductDetails:
        """A product with all its data and pictures. Raises UnknownProduct.

        >>> shop.product("MUG-1").product.brand
        'Okari'
        """
        return self._app.catalog.product(sku)

    def rebuild_index(self) -> Build:
        """Build and publish the FAISS index, which makes searches fast; they are right without it.

        >>> shop.rebuild_index().rows
        3
        """
        return self._app.indexer.rebuild()

    def _read(self, picture: Picture) -> bytes:
        return read_picture(self._app, picture)


def _rows(
    products: Iterable[Mapping[str, Any]], pictures: GivenPictures
) -> Iterator[SourceRow | SourceReject]:
    for index, product in enumerate(products):
        yield record_row(index, pictures.named(product))
