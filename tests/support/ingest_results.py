"""What an ingest left: counts of its report, rejects, and the stored catalogue."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg

from ingest.pipeline import IngestReport
from support.colours import photo
from support.sources import (
    contents,
)

KEYS = {
    "read", "added", "updated", "unchanged", "rejected", "images_embedded", "images_reused",
    "seconds",
}  # fmt: skip


def sha(seed: int, side: int = 8) -> str:
    return hashlib.sha256(photo(seed, side=side)).hexdigest()


def shown(sql: psycopg.Connection) -> dict[str, list[str]]:
    """The uris of the pictures of each product, in order."""
    rows = sql.execute(
        """SELECT sku, array_remove(array_agg(uri ORDER BY position), NULL)
        FROM product LEFT JOIN product_picture ON product_id = product.id GROUP BY sku"""
    )
    return {sku: uris for sku, uris in rows}


def counted(report: IngestReport) -> tuple[int, int, int, int]:
    return report.added, report.updated, report.unchanged, report.rejected


def run_concurrently(run: Callable[[], IngestReport], count: int) -> list[IngestReport]:
    """Reports of concurrent runs; an error in any of them is raised."""
    with ThreadPoolExecutor(count) as threads:
        return [future.result() for future in [threads.submit(run) for _ in range(count)]]


Shop = dict[str, tuple[tuple[str, ...], list[tuple[str, str]]]]


def stored(sql: psycopg.Connection) -> Shop:
    products: Shop = {
        sku: ((title, "" if price is None else str(price), attributes.get("size", "")), [])
        for sku, title, price, attributes in sql.execute(
            "SELECT sku, title, price, attributes FROM product"
        )
    }
    for sku, _, uri, digest in contents(sql)["shown"]:
        products[sku][1].append((digest, uri))
    return products
