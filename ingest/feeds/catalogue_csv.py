"""The catalogue's own CSV, and folders of pictures: reads and validates their rows."""

from __future__ import annotations

import csv
import stat
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Protocol

from app.catalog.entries import FIELDS, PICTURES, GivenFields
from app.db.text import has_surrogates, is_storable
from app.errors import BadSource
from ingest.product_fields import COLUMNS, BadField, product, readable_sku, short
from ingest.sources import (
    MAX_FIELD_LENGTH,
    MAX_IMAGES,
    SourceReject,
    SourceRow,
    text_encoding,
)

PICTURE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .gif .webp .avif .heic .heif .bmp .tif .tiff".split()  # noqa: SIM905
)

GIVEN_BY_FOLDER = GivenFields(frozenset(), frozenset(), pictures=True)
"""A folder changes only the pictures of products that exist."""


class _Lines(Protocol):
    """The type of `csv.reader(...)`, which has no public name."""

    @property
    def line_num(self) -> int: ...
    def __next__(self) -> list[str]: ...


def read(source: Path, *, encoding: str = "utf-8") -> Iterator[SourceRow | SourceReject]:
    """The rows of a CSV file, or of a folder of pictures. Raises BadSource."""
    try:
        kind = source.stat().st_mode
    except FileNotFoundError as exc:
        raise BadSource(f"There is no file or folder {source}.") from exc
    except OSError as exc:
        raise BadSource(f"{source} cannot be read: {exc.strerror or exc}.") from exc
    if stat.S_ISDIR(kind):
        return read_folder(source)
    if not stat.S_ISREG(kind):
        raise BadSource(f"{source} is neither a file nor a folder; save the catalogue as a file.")
    return read_csv(source, encoding=encoding)


def read_csv(source: Path, *, encoding: str = "utf-8") -> Iterator[SourceRow | SourceReject]:
    """The rows of a CSV with a header; columns of no known name become attributes.

    A row with more or fewer values than the header is refused: it may be cut or shifted.

    `line` is the line of the file in which a row begins, from 1. Raises BadSource for a file that
    cannot be read at all: no sku column, a header in another encoding, not text.
    """
    csv.field_size_limit(MAX_FIELD_LENGTH)
    try:
        with (
            source.open("rb") as file,
            TextIOWrapper(
                file,
                text_encoding(file.peek(4)[:4], encoding),
                errors="surrogateescape",
                newline="",
            ) as text,
        ):
            lines = csv.reader(text, strict=True)
            header = _header(source, lines, encoding)
            yield from _csv_rows(lines, header, encoding)
    except LookupError as exc:
        raise BadSource(f"There is no encoding named {encoding!r}.") from exc
    except OSError as exc:
        raise BadSource(f"{source} cannot be read: {exc.strerror or exc}.") from exc
    except UnicodeError as exc:
        raise BadSource(f"{source} is not {encoding}: {exc}. Name its encoding.") from exc


def read_folder(source: Path) -> Iterator[SourceRow | SourceReject]:
    """A product for every picture in a folder and its subfolders, in the order of their paths.

    The sku is the file name without its suffix. A new product has it as its title, and the name of
    its folder as its category; a stored one changes only its pictures.
    """
    pictures = sorted(
        path for path in source.rglob("*")
        if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file()
    )  # fmt: skip
    if not pictures:
        known = ", ".join(sorted(suffix[1:] for suffix in PICTURE_SUFFIXES))
        raise BadSource(f"There is no picture in {source}; looked for {known}.")
    for number, path in enumerate(pictures, start=1):
        relative = path.relative_to(source)
        category = relative.parent.name or None
        fields = {"sku": path.stem, "title": path.stem, "category": category or ""}
        try:
            if has_surrogates(str(relative)):
                raise BadField(f"the name of the file {str(relative)!r} is not text; rename it")
            yield SourceRow(number, product(fields, {}), (relative.as_posix(),), GIVEN_BY_FOLDER)
        except BadField as exc:
            yield SourceReject(number, readable_sku(path.stem), str(exc))


def _header(source: Path, lines: _Lines, encoding: str) -> list[str]:
    if source.suffix.lower() in PICTURE_SUFFIXES:
        raise BadSource(f"{source} is a picture; name a CSV file, or the folder it lies in.")
    try:
        header = [name.strip() for name in next(lines)]
    except StopIteration:
        raise BadSource(f"{source} is empty; the first line names the columns.") from None
    except csv.Error as exc:
        raise BadSource(f"{source} is not a CSV file: {exc}.") from exc
    lowered = [name.lower() for name in header]
    if not is_storable("".join(header)):
        raise BadSource(f"{source} is not {encoding} text. Name its encoding with --encoding.")
    if len(header) == 1 and (mark := next((m for m in ";\t|" if m in header[0]), None)):
        raise BadSource(f"{source} separates its columns by {mark!r}; save it with commas.")
    if "sku" not in lowered:
        raise BadSource(
            f"{source} has no column sku; it has {short(', '.join(header))}. The first line names "
            "the columns, separated by commas."
        )
    if duplicates := sorted({name for name in lowered if name and lowered.count(name) > 1}):
        raise BadSource(f"{source} has more than one column {short(', '.join(duplicates))}.")
    return [low if low in COLUMNS else name for low, name in zip(lowered, header, strict=True)]


def _csv_rows(
    lines: _Lines, header: list[str], encoding: str
) -> Iterator[SourceRow | SourceReject]:
    given = _given(header)
    while True:
        line = lines.line_num + 1
        try:
            values = next(lines)
        except StopIteration:
            return
        except csv.Error as exc:
            yield SourceReject(line, None, f"not a CSV row: {exc}")
            continue
        if len(values) != len(header) and any(value.strip() for value in values):
            yield _cut_or_shifted(line, header, values)
        elif any(value.strip() for value in values):
            yield _csv_row(line, header, values, encoding, given)


def _given(header: list[str]) -> GivenFields:
    attributes = frozenset(name for name in header if name and name not in COLUMNS)
    return GivenFields(frozenset(FIELDS) & set(header), attributes, PICTURES in header)


def _cut_or_shifted(line: int, header: list[str], values: list[str]) -> SourceReject:
    """The reject of a row with another number of values than the header.

    Its sku is known only if it is in the first column and more follows: otherwise it may be part of
    a sku, or of another column.
    """
    known = header[0] == "sku" and len(values) > 1
    sku = readable_sku(values[0].strip()) if known else None
    count = f"{len(values)} value{'s' * (len(values) != 1)} for {len(header)} columns"
    advice = "quote commas" if len(values) > len(header) else "the row is cut short"
    return SourceReject(line, sku, f"{count}; {advice}")


def _csv_row(
    line: int, header: list[str], values: list[str], encoding: str, given: GivenFields
) -> SourceRow | SourceReject:
    fields = dict(zip(header, (value.strip() for value in values), strict=True))
    try:
        if has_surrogates("".join(values)):
            raise BadField(f"not {encoding} text; save the file as UTF-8 or name its encoding")
        if any("\0" in value for value in values):
            raise BadField("a field holds a NUL character")
        images = tuple(part.strip() for part in fields.pop(PICTURES, "").split("|") if part.strip())
        if len(images) > MAX_IMAGES:
            raise BadField(f"{len(images)} images; a product shows at most {MAX_IMAGES}")
        unknown = {name: fields.pop(name) for name in list(fields) if name not in COLUMNS}
        return SourceRow(line, product(fields, unknown), images, given)
    except BadField as exc:
        return SourceReject(line, readable_sku(fields.get("sku", "")), str(exc))
