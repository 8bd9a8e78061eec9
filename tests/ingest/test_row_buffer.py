"""The row buffer of a source: same rows, same error, and a single read of the source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.bootstrap import App
from app.errors import BadInput, BadSource
from app.types import Product
from ingest import row_buffer
from ingest.row_buffer import RowBuffer
from ingest.sources import SourceReject, SourceRow
from support.sources import ingest, write_source

Rows = list[SourceRow | SourceReject]


def some_rows(count: int) -> Rows:
    """Rows, and a reject whose text was not decodable."""
    rows: Rows = [SourceRow(n, Product(sku=f"P{n}"), (f"{n}.png",)) for n in range(count)]
    return [*rows, SourceReject(count, None, "not utf-8: \udcff")]


@pytest.mark.parametrize("memory_bytes", [row_buffer.MEMORY_BYTES, 1])
@pytest.mark.parametrize("count", [0, 1, row_buffer.BLOCK_ROWS, 200])
def test_a_buffer_returns_the_rows_it_was_filled_with(
    count: int, memory_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_buffer, "MEMORY_BYTES", memory_bytes)
    rows = some_rows(count)
    with RowBuffer() as buffer:
        assert list(buffer.fill(rows)) == rows
        assert len(buffer) == count + 1
        assert list(buffer) == rows


@pytest.mark.parametrize("count", [0, 3, row_buffer.BLOCK_ROWS - 1, 100])
def test_a_source_that_fails_half_way_yields_the_rows_before_the_error(count: int) -> None:
    rows = some_rows(count)

    def broken() -> Iterator[SourceRow | SourceReject]:
        yield from rows
        raise BadSource("The disk is gone.")

    with RowBuffer() as buffer:
        assert list(buffer.fill(broken())) == rows
        replayed = iter(buffer)
        assert [next(replayed) for _ in rows] == rows
        with pytest.raises(BadSource, match="disk is gone"):
            next(replayed)


def test_an_ingest_opens_its_source_once_to_recognise_it_and_once_to_read_it(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_source(tmp_path, 3)
    opened: list[Path] = []
    real = Path.open

    def watch(self: Path, *args: Any, **options: Any) -> Any:
        opened.append(self)
        return real(self, *args, **options)

    monkeypatch.setattr(Path, "open", watch)
    assert ingest(app, source, prune=True).added == 3
    assert opened.count(source) == 2


def test_a_full_temporary_folder_is_an_error_with_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with RowBuffer() as buffer:
        monkeypatch.setattr(buffer._file, "write", full)
        with pytest.raises(BadInput, match=r"temporary file in .*No space left.*TMPDIR"):
            list(buffer.fill(some_rows(1)))
