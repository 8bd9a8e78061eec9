"""Google Merchant feeds as XML: RSS 2.0 and Atom 1.0, parsed in a stream.

A feed may be hostile or broken: a document type is refused, so that there are no entities to expand
and no external files; depth and the size of one product are bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from xml.parsers import expat

from app.errors import BadSource
from ingest.feeds.google import attribute_name, google_row
from ingest.sources import MAX_FIELD_LENGTH, SourceReject, SourceRow

GOOGLE = "http://base.google.com/ns/1.0"
ATOM = "http://www.w3.org/2005/Atom"
MAX_DEPTH = 32
MAX_VALUES = 10_000
"""Elements of one product."""
BLOCK = 1 << 16

PRODUCTS = ("item", f"{ATOM} entry")
"""The elements that hold a product: those of RSS have no namespace."""

Values = dict[str, list[str]]


def read_google_xml(source: Path) -> Iterator[SourceRow | SourceReject]:
    """The products of a feed; `line` is that in which the product begins.

    The attributes that occur anywhere in the feed are those that it gives: a product that lacks one
    has no value for it. So the file is read twice. Raises BadSource where it is not well-formed,
    after the products before that place, and for a feed without products.
    """
    given = _attributes(source)
    empty = True
    for line, values in _products(source):
        empty = False
        if isinstance(values, str):
            yield SourceReject(line, None, values)
        else:
            yield google_row(line, values, given)
    if empty:
        raise BadSource(
            f"{source} has no product: no <item> of RSS, and no <entry> of Atom. Name its format "
            "with --format."
        )


def _attributes(source: Path) -> frozenset[str]:
    """The names of all attributes, up to the place where the feed breaks off."""
    names: set[str] = set()
    try:
        for _, values in _products(source):
            names.update(values if isinstance(values, dict) else ())
    except BadSource:
        pass  # raised again when the products are read
    return frozenset(names)


def _products(source: Path) -> Iterator[tuple[int, Values | str]]:
    try:
        with source.open("rb") as file:
            yield from _parse(source, file)
    except OSError as exc:
        raise BadSource(f"{source} cannot be read: {exc.strerror or exc}.") from exc


def _parse(source: Path, file: BinaryIO) -> Iterator[tuple[int, Values | str]]:
    handler = _Handler(source)
    block = b"<"
    while block:
        block = file.read(BLOCK)
        error = handler.parse(block)
        yield from handler.products
        handler.products.clear()
        if error is not None:
            raise error


class _Handler:
    """Collects the products of the blocks that its parser is given."""

    def __init__(self, source: Path) -> None:
        self.products: list[tuple[int, Values | str]] = []
        self._source = source
        self._bytes = 0
        self._depth = 0
        self._product_depth = 0  # 0: outside a product
        self._line = 0
        self._values: Values = {}
        self._plain: Values = {}
        self._count = 0
        self._size = 0
        self._text: list[str] | None = None
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self._refuse_doctype
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters

    def parse(self, block: bytes) -> BadSource | None:
        """Parse a block, the empty one at the end; returns why the feed cannot be read on."""
        try:
            self.parser.Parse(block, not block)
        except BadSource as exc:
            return exc
        except expat.ExpatError as exc:
            return _caused(f"is not well-formed XML: {exc}; it may be cut off", self._source, exc)
        except (ValueError, LookupError) as exc:  # an encoding that Python does not have
            return _caused(f"cannot be read as XML: {exc}", self._source, exc)
        self._bytes += len(block)
        if self._bytes - self.parser.CurrentByteIndex > MAX_FIELD_LENGTH:
            return BadSource(f"{self._source} has a tag of more than {MAX_FIELD_LENGTH:,} bytes.")
        return None

    def _refuse_doctype(self, *_: object) -> None:
        raise BadSource(
            f"{self._source} declares a document type (DOCTYPE), whose entities could read other "
            "files or fill the memory; remove the declaration."
        )

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise BadSource(f"{self._source} nests elements more than {MAX_DEPTH} deep.")
        if not self._product_depth:
            if name in PRODUCTS:
                self._product_depth, self._line = self._depth, self.parser.CurrentLineNumber
                self._values, self._plain, self._count, self._size = {}, {}, 0, 0
        elif self._depth == self._product_depth + 1:
            self._text = []
            if name == f"{ATOM} link" and attributes.get("rel", "alternate") == "alternate":
                self._text.append(attributes.get("href", ""))
        else:
            self._text = None  # the parent has parts, such as g:shipping; it has no value itself

    def _characters(self, text: str) -> None:
        if self._product_depth:
            self._size += len(text)
            if self._text is not None and self._size <= MAX_FIELD_LENGTH:
                self._text.append(text)

    def _end(self, name: str) -> None:
        if self._product_depth and self._depth == self._product_depth:
            self.products.append((self._line, self._product()))
            self._product_depth = 0
        elif self._product_depth and self._text is not None:
            self._count += 1
            if self._count <= MAX_VALUES:
                self._add(name, "".join(self._text).strip())
            self._text = None
        self._depth -= 1

    def _add(self, name: str, text: str) -> None:
        namespace, _, local = name.rpartition(" ")
        of_google = namespace == GOOGLE
        if of_google or namespace in ("", ATOM):
            values = self._values if of_google else self._plain
            values.setdefault(attribute_name(local), []).append(text)

    def _product(self) -> Values | str:
        """The attributes; those of Google's namespace come before those of RSS and Atom."""
        if self._size > MAX_FIELD_LENGTH or self._count > MAX_VALUES:
            return (
                f"the product has more than {MAX_FIELD_LENGTH:,} characters or {MAX_VALUES:,} "
                "elements"
            )
        plain = {_ATOM_NAMES.get(name, name): values for name, values in self._plain.items()}
        return {**plain, **self._values}


def _caused(message: str, source: Path, cause: Exception) -> BadSource:
    error = BadSource(f"{source} {message}.")
    error.__cause__ = cause
    return error


_ATOM_NAMES = {"summary": "description", "content": "description"}
