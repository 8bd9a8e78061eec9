"""Evaluation: how often labelled query photos find the product they show, and how fast."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image
from sqlalchemy import Engine

from app.db.engine import check_schema
from app.db.queries import products
from app.errors import BadImage, BadSource
from app.evaluation.html_report import QueryCase
from app.evaluation.metrics import (
    Difference,
    Evaluation,
    Outcome,
    Ranks,
    difference,
    figures,
    read_ranks,
)
from app.images.thumbnails import thumbnail
from app.search.service import SearchService
from app.types import Filters, Product, Query

DEPTH = 10
"""How far down the expected product is looked for."""

SHOWN = 6
"""Matches that a report shows of a query."""


@dataclass(frozen=True, slots=True)
class LabelledQueries:
    """A query photo, as the file names it, and the sku of the product it shows."""

    line: int
    name: str
    picture: Path
    expected_sku: str


def read_queries(source: Path) -> list[LabelledQueries]:
    """A CSV with the columns query (a path beside the CSV) and expected_sku. Raises BadSource."""
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            queries = list(_labelled(source, csv.DictReader(file, strict=True)))
    except OSError as exc:
        raise BadSource(f"{source} cannot be read: {exc.strerror or exc}.") from exc
    except (UnicodeError, csv.Error) as exc:
        raise BadSource(f"{source} is not a CSV file in UTF-8: {exc}.") from exc
    if not queries:
        raise BadSource(f"{source} holds no queries; each line names a photo and a sku.")
    return queries


def evaluate(
    engine: Engine,
    service: SearchService,
    queries: Sequence[LabelledQueries],
    how: Query,
    warn: Callable[[str], None],
) -> Evaluation:
    """Ask every query as `how` says and look where its product comes.

    A product that came folded into another counts as found. `warn` is told of each query that
    could not be asked, and why. Raises BadSource if none could.
    """
    skus = [query.expected_sku for query in queries]
    with engine.connect() as connection:
        check_schema(connection)
        passing = products.filtered_skus(connection, skus, how.filters)
        categories = products.categories(connection, skus)
    outcomes: list[Outcome] = []
    unreadable = 0
    for query in queries:
        if query.expected_sku in categories and query.expected_sku not in passing:
            continue
        try:
            if query.expected_sku not in categories:
                raise BadImage(f"no product has the sku {query.expected_sku!r}")
            outcomes.append(_asked(service, query, how, categories[query.expected_sku]))
        except BadImage as exc:
            unreadable += 1
            warn(f"line {query.line}, {query.picture.name}: {exc}")
    if not outcomes:
        raise BadSource("None of the queries could be asked; see the reasons above.")
    return figures(outcomes, len(queries) - len(outcomes) - unreadable, unreadable)


def cases(
    engine: Engine,
    service: SearchService,
    decode: Callable[..., Image.Image],
    queries: Sequence[LabelledQueries],
    wanted: Sequence[Outcome],
    how: Query,
) -> list[QueryCase]:
    """Ask these queries again and keep the pictures; `decode` makes a picture of a file's bytes."""
    by_name = {(query.name, query.expected_sku): query for query in queries}
    found = []
    for outcome in wanted:
        query = by_name[outcome.query, outcome.expected_sku]
        data = _read(query)
        result = service.search(replace(how, picture=data, k=SHOWN))
        alone = Filters(columns={"sku": query.expected_sku})
        own = service.search(replace(how, picture=data, k=1, filters=alone)).matches
        photo = thumbnail(decode(data))
        with engine.connect() as connection:
            known = products.by_sku(connection, [query.expected_sku])
        expected = known[query.expected_sku].product if known else Product(query.expected_sku)
        picture, similarity = (own[0].thumbnail, own[0].similarity) if own else (None, None)
        found.append(QueryCase(outcome, photo, expected, picture, similarity, result.matches))
    return found


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


def compare(ours: Evaluation, theirs: Ranks) -> Difference:
    """This run beside another over the same queries. Raises BadSource if they share none."""
    if not ours.ranks.keys() & theirs.keys():
        raise BadSource("The two runs have no query in common; compare runs of the same file.")
    return difference(ours.ranks, theirs)


def _labelled(source: Path, rows: csv.DictReader[str]) -> Iterator[LabelledQueries]:
    if rows.fieldnames is None or not {"query", "expected_sku"} <= set(rows.fieldnames):
        raise BadSource(f"{source} needs the columns query and expected_sku.")
    seen: dict[tuple[str, str], int] = {}
    for row in rows:
        if not row["query"] or not row["expected_sku"]:
            raise BadSource(f"{source}, line {rows.line_num}: query or expected_sku is empty.")
        if "\0" in row["query"] + row["expected_sku"]:
            raise BadSource(f"{source}, line {rows.line_num}: a field holds a NUL character.")
        name = row["query"]
        before = seen.setdefault((name, row["expected_sku"]), rows.line_num)
        if before != rows.line_num:
            raise BadSource(f"{source}, line {rows.line_num}: the same as line {before}.")
        yield LabelledQueries(rows.line_num, name, source.parent / name, row["expected_sku"])


def _asked(
    service: SearchService, query: LabelledQueries, how: Query, category: str | None
) -> Outcome:
    result = service.search(replace(how, picture=_read(query), k=DEPTH))
    came = (
        match.rank
        for match in result.matches
        if query.expected_sku in (match.product.sku, *(fold.product.sku for fold in match.folded))
    )
    return Outcome(
        query.name,
        query.expected_sku,
        category,
        next(came, None),
        result.plan.ms["total"] - result.plan.ms.get("load", 0.0),
        sum(len(match.folded) for match in result.matches),
        len(result.dropped),
        tuple(match.product.sku for match in result.matches),
    )


def _read(query: LabelledQueries) -> bytes:
    try:
        if not query.picture.is_file():
            raise BadImage("there is no such file")
        return query.picture.read_bytes()
    except OSError as exc:
        raise BadImage(f"cannot be read: {exc.strerror or exc}") from exc
