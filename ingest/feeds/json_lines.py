"""JSON lines: one product a line, with the columns of a CSV or of a Google feed as its keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ingest.feeds.google import attribute_name, google_row, is_google
from ingest.feeds.json_text import json_lines
from ingest.feeds.shopify import text_of
from ingest.product_fields import BadField, check_storable, readable_sku
from ingest.records import record_row
from ingest.sources import SourceReject, SourceRow


def read_json_lines(source: Path) -> Iterator[SourceRow | SourceReject]:
    """A row for each line; see `records.record_row` for keys and values. Raises BadSource."""
    for line, record in json_lines(source):
        yield SourceReject(line, None, record) if isinstance(record, str) else any_row(line, record)


def any_row(line: int, record: Mapping[str, Any]) -> SourceRow | SourceReject:
    """The row of a record, whose keys are ours (`sku`, `images`) or Google's (`id`,
    `image_link`)."""
    names = {name.strip().lower() for name in record}
    if "sku" in names or not is_google(list(record)):
        return record_row(line, record)
    try:
        values = {
            check_storable("a name", attribute_name(name)): _texts(value)
            for name, value in record.items()
        }
    except BadField as exc:
        sku = record.get("id")
        return SourceReject(line, readable_sku(sku) if isinstance(sku, str) else None, str(exc))
    return google_row(line, values, frozenset(values))


def _texts(value: Any) -> list[str]:
    return [text_of(each) for each in value] if isinstance(value, list) else [text_of(value)]
