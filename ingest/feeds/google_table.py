"""Google Merchant feeds as text: columns separated by tabs, or by commas."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from app.errors import BadSource
from ingest.feeds.delimited import NamedValues, open_table
from ingest.feeds.google import attribute_name, google_row
from ingest.product_fields import short
from ingest.sources import SourceReject, SourceRow


def read_google_table(
    source: Path, encoding: str, separator: str = "\t"
) -> Iterator[SourceRow | SourceReject]:
    """The rows of a feed with the attribute names in the first line; an empty value is none.

    Raises BadSource for a file that cannot be read at all, or without a column `id`.
    """
    names, rows = open_table(source, encoding, separator, attribute_name)
    if "id" not in names:
        raise BadSource(
            f"{source} has no column id; it has {short(', '.join(names))}. The first line of a "
            "Google feed names the attributes, separated by tabs."
        )
    given = frozenset(name for name in names if name)
    for line, values in rows:
        if isinstance(values, str):
            yield SourceReject(line, None, values)
        else:
            yield google_row(line, _grouped(values), given)


def _grouped(values: NamedValues) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name, value in values:
        grouped.setdefault(name, []).append(value)
    return grouped
