"""Pinned products of the session: kept while the search changes, compared, and exported."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import streamlit as st

from app.images.thumbnails import open_thumbnail
from app.types import Product
from app.ui.components.comparison import MAX_PRODUCTS, comparison_html
from app.ui.components.fold_lists import FIGURE_WIDTH, figure_html
from app.ui.components.product_cards import display_name
from app.ui.csv_export import csv_bytes
from app.ui.formatting import escape_markdown, format_price
from app.ui.shared import uninterrupted
from app.ui.translation import _
from ingest.demo.contact_sheet import SheetPicture, picture_grid

PINS = "search_pins"
"""Session key of the pinned products by sku, each with its JPEG."""

MAX_PINS = 100

COLUMNS = ("sku", "title", "brand", "category", "colour", "year", "price", "currency", "attributes")


@dataclass(frozen=True, slots=True)
class Pin:
    """A pinned product and a JPEG of it, if there is one."""

    product: Product
    thumbnail: bytes | None


def is_pinned(sku: str) -> bool:
    """Whether a product is pinned."""
    return sku in _pins()


@uninterrupted
def toggle(product: Product, thumbnail: bytes | None) -> None:
    """Pin a product with its JPEG, or take it off; a callback."""
    pins = _pins()
    others = {sku: each for sku, each in pins.items() if sku != product.sku}
    if len(others) == len(pins):
        others[product.sku] = Pin(product, thumbnail)
    st.session_state[PINS] = dict(list(others.items())[-MAX_PINS:])


@uninterrupted
def clear() -> None:
    """Take all pins off; a callback."""
    st.session_state[PINS] = {}


def draw() -> None:
    """Draw the button that opens the pinned products; nothing without any."""
    pins = list(_pins().values())
    label = _("Pinned ({count})").format(count=len(pins))
    if pins and st.button(label, key="pinned", icon=":material/keep:"):
        st.dialog(_("Pinned products"), width="large")(_draw_dialog)(pins)


def _draw_dialog(pins: Sequence[Pin]) -> None:
    with st.container(horizontal=True):
        for data, kind, mime in (
            (lambda: csv_of(pins), "CSV", "text/csv"),
            (lambda: sheet_of(pins, "PNG"), "PNG", "image/png"),
            (lambda: sheet_of(pins, "PDF"), "PDF", "application/pdf"),
        ):
            st.download_button(
                kind, data, file_name=f"pinned.{kind.lower()}", mime=mime, on_click="ignore",
                icon=":material/download:", key=f"export-{kind}",
            )  # fmt: skip
        if st.button(_("Remove all"), type="tertiary", key="unpin-all", on_click=clear):
            st.rerun()
    if len(pins) > 1:
        _draw_comparison(pins)
        st.subheader(_("All pinned"), anchor=False)
    with st.container(horizontal=True):
        for pin in pins:
            with st.container(width=FIGURE_WIDTH):
                thumbnails = {} if pin.thumbnail is None else {pin.product.sku: pin.thumbnail}
                st.html(figure_html(pin.product, thumbnails, _facts(pin.product)))
                if st.button(
                    _("Remove *{name}*").format(name=escape_markdown(pin.product.sku)),
                    type="tertiary",
                    key=f"unpin {pin.product.sku!r}", on_click=toggle,
                    args=(pin.product, pin.thumbnail),
                ):  # fmt: skip
                    st.rerun()


def _draw_comparison(pins: Sequence[Pin]) -> None:
    """Draw the products that are chosen, at first the last ones, side by side."""
    products = {pin.product.sku: pin for pin in pins}
    skus = list(products)
    chosen = st.multiselect(
        _("Compare up to {count}").format(count=MAX_PRODUCTS), skus, default=skus[-MAX_PRODUCTS:],
        max_selections=MAX_PRODUCTS, key="pins-compared", select_all=False,
        format_func=lambda sku: f"{display_name(products[sku].product)} ({sku})",
    )  # fmt: skip
    if len(chosen) > 1:
        st.html(comparison_html([(products[s].product, products[s].thumbnail) for s in chosen]))


def csv_of(pins: Sequence[Pin]) -> bytes:
    """The pinned products as CSV, with attributes as JSON; nothing a spreadsheet would run."""
    rows = [
        {name: getattr(pin.product, name) for name in COLUMNS}
        | {"attributes": json.dumps(dict(pin.product.attributes), ensure_ascii=False)}
        for pin in pins
    ]
    return csv_bytes(COLUMNS, rows)


def sheet_of(pins: Sequence[Pin], kind: str) -> bytes:
    """A contact sheet of the pinned products that have a picture, as "PNG" or "PDF"."""
    cells = [
        SheetPicture(open_thumbnail(pin.thumbnail), _lines(pin.product))
        for pin in pins
        if pin.thumbnail is not None
    ]
    file = BytesIO()
    picture_grid(cells).save(file, kind)
    return file.getvalue()


def _lines(product: Product) -> tuple[str, ...]:
    lines = (product.title.strip() or product.sku, format_price(product), product.sku)
    return tuple(filter(None, lines))


def _facts(product: Product) -> str:
    facts = (product.brand, product.category, product.colour)
    return " · ".join(fact for fact in facts if fact)


def _pins() -> dict[str, Pin]:
    pins: dict[str, Pin] = st.session_state.get(PINS, {})
    return pins
