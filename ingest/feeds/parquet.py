"""Parquet files, with the columns of a CSV or of a Google feed; the only module that imports
pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from app.errors import BadSource
from ingest.feeds.json_lines import any_row
from ingest.product_fields import short
from ingest.sources import SourceReject, SourceRow

BATCH = 256
"""Rows that are read at a time: few, because a row may have megabytes."""


def read_parquet(source: Path) -> Iterator[SourceRow | SourceReject]:
    """A row for each row of the file; `line` is its number, from 1. See `records.record_row`.

    Raises BadSource for a file that cannot be read, after the rows before the place where it is
    damaged.
    """
    try:
        import pyarrow as pa  # slow, and rarely needed
        import pyarrow.parquet as pq
    except ImportError as exc:
        raise BadSource(
            f"{source} is a Parquet file, which pyarrow reads; install it: "
            "`pip install 'lookalike[parquet]'`."
        ) from exc
    line = 0
    try:
        with pq.ParquetFile(source) as file:
            _check_columns(source, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=BATCH):
                for record in batch.to_pylist():
                    line += 1
                    yield any_row(line, record)
    except (OSError, ValueError, pa.ArrowException) as exc:  # ValueError: not UTF-8
        reason = (str(exc).splitlines() or [type(exc).__name__])[0].rstrip(".")
        raise BadSource(f"{source} cannot be read as Parquet: {reason}.") from exc


def _check_columns(source: Path, names: list[str]) -> None:
    if not {"sku", "id"} & {name.strip().lower() for name in names}:
        raise BadSource(f"{source} has no column sku or id; it has {short(', '.join(names))}.")
