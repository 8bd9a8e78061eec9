"""Evaluation: how often labelled query photos find the product they show, and how fast."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine

from app.database import check_schema
from app.errors import BadImage, BadSource
from app.search import SearchService
from app.store import products
from app.values import Filters, Query

DEPTH = 10
"""How far down the expected product is looked for."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A query photo and the sku of the product it shows."""

    line: int
    picture: Path
    expected_sku: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Quality and speed over `queries` query photos.

    `recall_at_k` is the share of queries whose expected product is among the first k (0 to 1),
    `mrr` the mean of 1/rank within the first ten, the times milliseconds from bytes to result
    without loading the model. `filtered_out` queries expect a product the filter leaves out, and
    `unreadable` ones could not be asked; neither counts in the shares.
    """

    queries: int
    recall_at_1: float
    recall_at_5: float
    recall_at_10: float
    mrr: float
    p50_ms: float
    p95_ms: float
    filtered_out: int
    unreadable: int

    def as_dict(self) -> dict[str, Any]:
        """The figures by name."""
        return asdict(self)


def read_queries(source: Path) -> list[Labelled]:
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
    queries: Sequence[Labelled],
    filters: Filters,
    warn: Callable[[str], None],
) -> Evaluation:
    """Ask every query and look where its product comes. Raises BadSource if none can be asked.

    `warn` is told of each query that could not be asked, and why.
    """
    with engine.connect() as connection:
        check_schema(connection)
        passing = products.passing(connection, [q.expected_sku for q in queries], filters)
        known = products.ids(connection, [q.expected_sku for q in queries])
    ranks: list[int | None] = []
    times: list[float] = []
    unreadable = 0
    for query in queries:
        if query.expected_sku in known and query.expected_sku not in passing:
            continue
        try:
            if query.expected_sku not in known:
                raise BadImage(f"no product has the sku {query.expected_sku!r}")
            rank, ms = _ask(service, query, filters)
        except BadImage as exc:
            unreadable += 1
            warn(f"line {query.line}, {query.picture.name}: {exc}")
            continue
        ranks.append(rank)
        times.append(ms)
    if not ranks:
        raise BadSource("None of the queries could be asked; see the reasons above.")
    return _figures(ranks, times, len(queries) - len(ranks) - unreadable, unreadable)


def _labelled(source: Path, rows: csv.DictReader[str]) -> Iterator[Labelled]:
    if rows.fieldnames is None or not {"query", "expected_sku"} <= set(rows.fieldnames):
        raise BadSource(f"{source} needs the columns query and expected_sku.")
    for row in rows:
        if not row["query"] or not row["expected_sku"]:
            raise BadSource(f"{source}, line {rows.line_num}: query or expected_sku is empty.")
        if "\0" in row["query"] + row["expected_sku"]:
            raise BadSource(f"{source}, line {rows.line_num}: a field holds a NUL character.")
        yield Labelled(rows.line_num, source.parent / row["query"], row["expected_sku"])


def _ask(service: SearchService, query: Labelled, filters: Filters) -> tuple[int | None, float]:
    """The rank of the expected product (None: not among the first ten) and the milliseconds."""
    try:
        if not query.picture.is_file():
            raise BadImage("there is no such file")
        data = query.picture.read_bytes()
    except OSError as exc:
        raise BadImage(f"cannot be read: {exc.strerror or exc}") from exc
    result = service.search(Query(picture=data, k=DEPTH, filters=filters))
    rank = next(
        (match.rank for match in result.matches if match.product.sku == query.expected_sku), None
    )
    return rank, result.plan.ms["total"] - result.plan.ms.get("load", 0.0)


def _figures(
    ranks: Sequence[int | None], times: Sequence[float], filtered_out: int, unreadable: int
) -> Evaluation:
    place = np.array([np.inf if rank is None else rank for rank in ranks])
    return Evaluation(
        queries=len(ranks),
        recall_at_1=float((place <= 1).mean()),
        recall_at_5=float((place <= 5).mean()),
        recall_at_10=float((place <= 10).mean()),
        mrr=float((1 / place).mean()),
        p50_ms=round(float(np.percentile(times, 50)), 3),
        p95_ms=round(float(np.percentile(times, 95)), 3),
        filtered_out=filtered_out,
        unreadable=unreadable,
    )
