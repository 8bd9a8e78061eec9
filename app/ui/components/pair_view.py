"""Two products side by side as HTML, with all text escaped and differences marked."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher
from html import escape

from app.duplicates.review import ReviewPair, ReviewProduct
from app.types import Product
from app.ui.engine_texts import column_title
from app.ui.formatting import data_url, format_price, html_attribute
from app.ui.translation import _

MAX_ATTRIBUTES = 12
"""Attributes that are compared at most; a product may have any number."""

MISSING = "&mdash;"
"""Shown if only one of the products has the field."""

STYLE = """<style>
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .75rem;
  margin: 0 !important; padding: 0 !important }
.pair figure { margin: 0; border: 1px solid color-mix(in srgb, currentColor 18%, transparent);
  border-radius: .6rem; overflow: hidden }
.pair img { width: 100%; object-fit: contain; display: block; background: #fff }
.pair .large { aspect-ratio: 4 / 3 }
.pair .small { display: grid; grid-template-columns: repeat(4, 1fr); gap: 2px; aspect-ratio: 4 / 1;
  font-size: .85rem; place-items: center }
.pair .small img { aspect-ratio: 1 }
.pair .none { aspect-ratio: 4 / 3; display: grid; place-items: center; opacity: .75 }
.pair .field { grid-column: 1 / -1; display: grid; grid-template-columns: 1fr 1fr; gap: 0 .75rem;
  border-top: 1px solid color-mix(in srgb, currentColor 14%, transparent); padding-top: .35rem;
  overflow-wrap: anywhere; line-height: 1.45 }
.pair dt { grid-column: 1 / -1; font-size: .8rem;
  color: color-mix(in srgb, currentColor 72%, transparent) }
.pair dd { margin: 0; white-space: pre-wrap }
.pair .title dd { font-size: 1.1rem; font-weight: 600 }
.pair .alike dd { color: color-mix(in srgb, currentColor 80%, transparent) }
.pair mark { background: color-mix(in srgb, #e8a317 30%, transparent); color: inherit;
  border-bottom: 2px solid #c98a00; border-radius: .15rem; padding: 0 .1rem }
</style>"""


def pictures_html(question: ReviewPair) -> str:
    """The pictures of both products; the most similar ones are large."""
    left, right = question.sides
    strip = any(len(side.pictures) > 1 or side.more for side in question.sides)
    return f"{STYLE}<div class=pair>{_pictures(left, strip)}{_pictures(right, strip)}</div>"


def fields_html(question: ReviewPair) -> str:
    """The fields of both products in rows: the title, then different fields, then equal ones."""
    compared = list(_compared(*(side.product for side in question.sides)))
    title, others = compared[:1], [row for row in compared[1:] if row[1] or row[2]]
    others.sort(key=lambda row: row[1] == row[2])
    rows = "".join(_field(*row) for row in title + others)
    return f"<dl class=pair>{rows}</dl>"


def _pictures(side: ReviewProduct, strip: bool) -> str:
    name = side.product.title or side.product.sku
    if not side.pictures:
        none = escape(_("No picture"))
        return f"<figure><div class=none>{none}</div></figure>"
    large, *small = side.pictures
    alt = _("Another picture of {name}").format(name=name)
    others = "".join(_image(shown.thumbnail, alt) for shown in small)
    more = f"<span>+ {side.more}</span>" if side.more > 0 else ""
    below = f"<div class=small>{others}{more}</div>" if strip else ""
    return f"<figure>{_image(large.thumbnail, name, 'large')}{below}</figure>"


def _image(jpeg: bytes, alt: str, kind: str = "") -> str:
    return f'<img class="{kind}" alt={html_attribute(alt)} src="{data_url(jpeg)}">'


def _field(name: str, a: str, b: str) -> str:
    left, right = _marked(a, b)
    kinds = ("field", "title" * (name == column_title("title")), "alike" * (a == b))
    shown = " ".join(kind for kind in kinds if kind)
    return (
        f'<div class="{shown}"><dt>{escape(name)}</dt>'
        f"<dd>{left or MISSING}</dd><dd>{right or MISSING}</dd></div>"
    )


def _compared(a: Product, b: Product) -> Iterator[tuple[str, str, str]]:
    """The fields of two products as text, each with its name."""
    for name in ("title", "brand", "category", "colour", "year"):
        yield column_title(name), _text(getattr(a, name)), _text(getattr(b, name))
    yield column_title("price"), format_price(a), format_price(b)
    yield "SKU", a.sku, b.sku
    names = sorted({*a.attributes, *b.attributes})
    for name in names[:MAX_ATTRIBUTES]:
        yield name, _text(a.attributes.get(name)), _text(b.attributes.get(name))


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _marked(a: str, b: str) -> tuple[str, str]:
    """Both texts as HTML; words that differ from the other text are marked."""
    ours, theirs = a.split(), b.split()
    left: list[str] = []
    right: list[str] = []
    for kind, i1, i2, j1, j2 in SequenceMatcher(None, ours, theirs, False).get_opcodes():
        for words, shown in ((ours[i1:i2], left), (theirs[j1:j2], right)):
            text = escape(" ".join(words))
            if text:
                shown.append(text if kind == "equal" else f"<mark>{text}</mark>")
    return " ".join(left), " ".join(right)
