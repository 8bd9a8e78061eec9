"""Draws searches on one picture: each row is a query photo and its matches."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from app import atomic_files

WIDTH = 1400
MARGIN = 28
GAP = 16
PAPER, CARD, TINT = "#f4f2ee", "#ffffff", "#e4e9f2"
INK, MUTED, ACCENT, TRACK = "#1d2430", "#6a7280", "#2f5fd0", "#dde1e8"
TITLE, SMALL = 16, 14
LINE = 19
BAR = 6

# Letters that Unicode does not decompose.
UNACCENTED = {"ø": "o", "Ø": "O", "ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "ł": "l", "Ł": "L"}

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class SheetPicture:
    """A picture and its caption lines; `similarity` (cosine) is drawn as a bar from 0 to 1."""

    picture: Image.Image
    lines: tuple[str, ...] = ()
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class SheetRow:
    """A query and its matches, best first."""

    query: SheetPicture
    matches: tuple[SheetPicture, ...]


def contact_sheet(rows: Sequence[SheetRow], target: Path) -> None:
    """Writes the rows to `target` as a PNG 1,400 pixels wide, atomically.

    The first caption line is set larger and may take two lines; what does not fit ends in an
    ellipsis. Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("A contact sheet needs at least one row.")
    columns = 1 + max(len(row.matches) for row in rows)
    side = min(300, (WIDTH - 2 * MARGIN - GAP * columns) // columns)
    heights = [_row_height(row, side) for row in rows]
    sheet = Image.new("RGB", (WIDTH, 2 * MARGIN + sum(heights) + GAP * (len(rows) - 1)), PAPER)
    top = MARGIN
    for row, height in zip(rows, heights, strict=True):
        _draw_row(sheet, row, top, side, height)
        top += height + GAP
    _save(sheet, target)


def picture_grid(cells: Sequence[SheetPicture], columns: int = 5) -> Image.Image:
    """The cells in rows of `columns`, on a sheet 1,400 pixels wide; a blank sheet without any."""
    side = (WIDTH - 2 * MARGIN - GAP * (columns - 1)) // columns
    rows = [cells[first : first + columns] for first in range(0, len(cells), columns)]
    heights = [_cells_height(row, side) for row in rows]
    sheet = Image.new("RGB", (WIDTH, 2 * MARGIN + sum(heights)), PAPER)
    top = MARGIN
    for row, height in zip(rows, heights, strict=True):
        for place, cell in enumerate(row):
            at = (MARGIN + (side + GAP) * place, top)
            _draw_cell(sheet, cell, at, side, outline=None)
        top += height
    return sheet


def _draw_row(sheet: Image.Image, row: SheetRow, top: int, side: int, height: int) -> None:
    pen = ImageDraw.Draw(sheet)
    around = (MARGIN - 12, top, MARGIN + side + 12, top + height)
    pen.rounded_rectangle(around, 12, fill=TINT)
    _draw_cell(sheet, row.query, (MARGIN, top + 12), side, outline=ACCENT)
    # Twice the usual gap separates the query from its matches.
    for place, match in enumerate(row.matches):
        left = MARGIN + (side + GAP) * (place + 1) + GAP
        _draw_cell(sheet, match, (left, top + 12), side, outline=None)


def _draw_cell(
    sheet: Image.Image, cell: SheetPicture, at: tuple[int, int], side: int, *, outline: str | None
) -> None:
    left, top = at
    pen = ImageDraw.Draw(sheet)
    small = ImageOps.contain(cell.picture.convert("RGB"), (side, side), Image.Resampling.LANCZOS)
    ground = TINT if outline else CARD
    pen.rectangle((left, top, left + side - 1, top + side - 1), fill=ground)
    sheet.paste(small, (left + (side - small.width) // 2, top + (side - small.height) // 2))
    if outline:
        pen.rectangle(
            (left - 3, top - 3, left + side + 2, top + side + 2), outline=outline, width=3
        )
    below = top + side + 9
    if cell.similarity is not None:
        _draw_bar(pen, cell.similarity, (left, below), side)
        below += LINE
    for text, font, colour in _caption(cell, side):
        pen.text((left, below), text, font=font, fill=colour)
        below += LINE


def _draw_bar(pen: ImageDraw.ImageDraw, similarity: float, at: tuple[int, int], side: int) -> None:
    left, top = at
    label = f"{similarity:.2f}"
    font = ImageFont.load_default(SMALL)
    end = left + side - round(font.getlength(label)) - 9
    middle = top + LINE // 2 - BAR // 2
    pen.rounded_rectangle((left, middle, end, middle + BAR), BAR // 2, fill=TRACK)
    share = min(max(similarity, 0.0), 1.0)
    if share > 0:
        full = left + max(BAR, round((end - left) * share))
        pen.rounded_rectangle((left, middle, full, middle + BAR), BAR // 2, fill=ACCENT)
    pen.text((end + 9, top), label, font=font, fill=INK)


def _caption(cell: SheetPicture, side: int) -> list[tuple[str, Font, str]]:
    if not cell.lines:
        return []
    title, rest = ImageFont.load_default(TITLE), ImageFont.load_default(SMALL)
    set_lines = [(text, title, INK) for text in wrapped(cell.lines[0], title, side, lines=2)]
    for line in cell.lines[1:]:
        set_lines += [(text, rest, MUTED) for text in wrapped(line, rest, side, lines=1)]
    return set_lines


def _row_height(row: SheetRow, side: int) -> int:
    return 12 + _cells_height((row.query, *row.matches), side)


def _cells_height(cells: Sequence[SheetPicture], side: int) -> int:
    lines = [len(_caption(cell, side)) + (cell.similarity is not None) for cell in cells]
    return side + 9 + LINE * max(lines) + 12


def wrapped(text: str, font: Font, width: int, *, lines: int) -> list[str]:
    """The text in at most `lines` lines of `width` pixels, cut with an ellipsis if too long."""
    done: list[str] = []
    words = _printable(text, font).split()
    while words and len(done) < lines - 1:
        count = len(words)
        while count > 1 and font.getlength(" ".join(words[:count])) > width:
            count -= 1
        done.append(_cut(" ".join(words[:count]), font, width))
        words = words[count:]
    return [*done, _cut(" ".join(words), font, width)] if words else done


def _printable(text: str, font: Font) -> str:
    """The text; letters that Pillow's built-in font lacks are replaced by ones without accents."""
    return "".join(letter if _has(font, letter) else _bare(letter) for letter in text)


def _has(font: Font, letter: str) -> bool:
    # A font draws all missing characters as the same box; no font has U+FFFF.
    if letter.isascii():
        return True
    box, missing = (font.getmask(character) for character in (letter, "\uffff"))
    return box.size != missing.size or bytes(box) != bytes(missing)


def _bare(letter: str) -> str:
    base = unicodedata.normalize("NFKD", letter)[0]
    return base if base.isascii() else UNACCENTED.get(letter, "?")


def _cut(text: str, font: Font, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"


def _save(sheet: Image.Image, target: Path) -> None:
    """Readers of `target` see the old sheet or the new one, never half of one."""
    with atomic_files.replace(target, durable=False, mode=0o644) as file:
        sheet.save(file, "PNG", optimize=True)
