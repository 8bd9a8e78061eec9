"""Evaluates search with labelled queries: photos, words or both, and the products they mean."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image
from sqlalchemy import Engine

from app.csv_columns import read_columns
from app.db.engine import check_schema
from app.db.queries import products
from app.errors import BadImage, BadSource, UnknownProduct
from app.evaluation.html_report import QueryCase
from app.evaluation.metrics import (
    Evaluation,
    QueryOutcome,
    Ranks,
    RunDifference,
    compare_ranks,
    read_ranks,
    summarize,
)
from app.images.thumbnails import thumbnail
from app.search.service import SearchService
from app.types import Filters, Product, Query

DEPTH = 10
"""Number of matches among which the expected product is searched."""

SHOWN = 6
"""Matches of each query that a report shows."""


@dataclass(frozen=True, slots=True)
class LabelledQuery:
    """A query photo (a file, or its bytes), words, a sku or two of these (None: without), its name
    in the file, and the sku of the product that it means.

    `filters` are those of the query alone; None: those of the run."""

    line: int
    name: str
    picture: Path | bytes | None
    expected_sku: str
    words: str | None = None
    sku: str | None = None
    filters: Filters | None = None


def read_queries(source: Path) -> list[LabelledQuery]:
    """A CSV with the columns query (a path relative to the CSV) and expected_sku, or words in place
    of the query or beside it.

    Raises BadSource for a file that cannot be used and for an invalid line.
    """
    queries = list(_parse_queries(source))
    if not queries:
        raise BadSource(f"{source} holds no queries; each line names a photo or words, and a sku.")
    return queries


def evaluate(
    engine: Engine,
    service: SearchService,
    queries: Sequence[LabelledQuery],
    template: Query,
    warn: Callable[[str], None],
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """Search with every query photo, and measure the rank of its product.

    `template` gives filters and options of the searches. A product that is folded into another
    counts as found. `warn` is called with each query that failed, and the reason, and
    `progress` before each query with how many were asked. Raises BadSource if all failed.
    """
    skus = [query.expected_sku for query in queries]
    with engine.connect() as connection:
        check_schema(connection)
        passing = products.filtered_skus(connection, skus, template.filters)
        categories = products.categories(connection, skus)
    outcomes: list[QueryOutcome] = []
    unreadable = 0
    for number, query in enumerate(queries):
        if progress is not None:
            progress(f"{number:,} of {len(queries):,} queries asked")
        if query.expected_sku in categories and query.expected_sku not in passing:
            continue
        try:
            if query.expected_sku not in categories:
                raise BadImage(f"no product has the sku {query.expected_sku!r}")
            outcomes.append(_search(service, query, template, categories[query.expected_sku]))
        except (BadImage, UnknownProduct) as exc:
            unreadable += 1
            name = query.picture.name if isinstance(query.picture, Path) else query.name
            warn(f"line {query.line}, {name}: {exc}")
    if not outcomes:
        raise BadSource("None of the queries could be asked; see the reasons above.")
    return summarize(outcomes, len(queries) - len(outcomes) - unreadable, unreadable)


def cases(
    engine: Engine,
    service: SearchService,
    decode: Callable[..., Image.Image],
    queries: Sequence[LabelledQuery],
    outcomes: Sequence[QueryOutcome],
    template: Query,
) -> list[QueryCase]:
    """Repeat the searches of these outcomes and collect what a report shows of them.

    `decode` turns the bytes of a file into a picture.
    """
    by_name = {(query.name, query.expected_sku): query for query in queries}
    cases = []
    for outcome in outcomes:
        query = by_name[outcome.query, outcome.expected_sku]
        asked = _asked(query, template)
        result = service.search(replace(asked, k=SHOWN))
        only_expected = Filters(columns={"sku": query.expected_sku})
        own = service.search(replace(asked, k=1, filters=only_expected)).matches
        photo = None if asked.picture is None else thumbnail(decode(asked.picture))
        with engine.connect() as connection:
            by_sku = products.by_sku(connection, [query.expected_sku])
        expected = by_sku[query.expected_sku].product if by_sku else Product(query.expected_sku)
        picture, similarity = (own[0].thumbnail, own[0].similarity) if own else (None, None)
        cases.append(QueryCase(outcome, photo, expected, picture, similarity, result.matches))
    return cases


def read_run(source: Path) -> Ranks:
    """The ranks in a file that `lookalike eval --json` wrote. Raises BadSource."""
    try:
        return read_ranks(json.loads(source.read_text(encoding="utf-8")))
    except OSError as exc:
        raise BadSource(f"{source} cannot be read: {exc.strerror or exc}.") from exc
    except (UnicodeError, ValueError) as exc:
        raise BadSource(
            f"{source} is not what `lookalike eval --json` writes: {str(exc).rstrip('.')}."
        ) from exc


def compare(ours: Evaluation, theirs: Ranks) -> RunDifference:
    """Compare two runs over the same queries. Raises BadSource if they have none in common."""
    if not ours.ranks.keys() & theirs.keys():
        raise BadSource("The two runs have no query in common; compare runs of the same file.")
    return compare_ranks(ours.ranks, theirs)


def _parse_queries(source: Path) -> Iterator[LabelledQuery]:
    first_lines: dict[tuple[str, str], int] = {}
    for line, row in read_columns(source, "expected_sku", optional=("query", "words")):
        photo, sku, words = row["query"], row["expected_sku"], row["words"].strip()
        name = " + ".join(filter(None, (photo, words)))
        if not name or not sku:
            raise BadSource(
                f"{source}, line {line}: expected_sku is empty, or both query and words are."
            )
        if "\0" in name + sku:
            raise BadSource(f"{source}, line {line}: a field holds a NUL character.")
        first = first_lines.setdefault((name, sku), line)
        if first != line:
            raise BadSource(f"{source}, line {line}: the same as line {first}.")
        picture = source.parent / photo if photo else None
        yield LabelledQuery(line, name, picture, sku, words or None)


def _search(
    service: SearchService, query: LabelledQuery, template: Query, category: str | None
) -> QueryOutcome:
    result = service.search(replace(_asked(query, template), k=DEPTH))
    ranks = (
        match.rank
        for match in result.matches
        if query.expected_sku in (match.product.sku, *(fold.product.sku for fold in match.folded))
    )
    return QueryOutcome(
        query.name,
        query.expected_sku,
        category,
        next(ranks, None),
        result.plan.ms["total"] - result.plan.ms.get("load", 0.0),
        sum(len(match.folded) for match in result.matches),
        len(result.dropped),
        tuple(match.product.sku for match in result.matches),
    )


def _asked(query: LabelledQuery, template: Query) -> Query:
    picture = _read(query.picture) if isinstance(query.picture, Path) else query.picture
    filters = template.filters if query.filters is None else query.filters
    return replace(
        template, picture=picture, words=query.words or template.words, sku=query.sku,
        filters=filters,
    )  # fmt: skip


def _read(picture: Path) -> bytes:
    try:
        if not picture.is_file():
            raise BadImage("there is no such file")
        return picture.read_bytes()
    except OSError as exc:
        raise BadImage(f"cannot be read: {exc.strerror or exc}") from exc
