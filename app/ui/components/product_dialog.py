"""The details of one product, or its similar listings, in a dialog over the results."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import streamlit as st

from app.types import (
    Folded,
    Match,
    Product,
    ProductDetails,
    Region,
    SearchResult,
    SimilarListing,
    StoredPicture,
)
from app.ui.components.answer_footer import drop_text
from app.ui.components.fold_lists import FIGURE_WIDTH, REASONS, Thumbnails, figure_html
from app.ui.components.product_cards import display_name
from app.ui.engine_texts import (
    column_title,
    distance_text,
    engine_text,
    same_picture_text,
    similar_number,
)
from app.ui.formatting import escape_markdown, format_decimal, format_price, img_tag
from app.ui.shared import errors_as_text, services, uninterrupted
from app.ui.translation import _

if TYPE_CHECKING:
    from app.search.heat_map import MatchHeat  # importing it loads the drawing of heat maps

REQUESTED = "search_details"
SIMILAR_REQUESTED = "search_similar"
"""Session keys of the sku whose details, or similar listings, were requested."""


PAGE_NAMES = ("link", "url", "product_url", "product_link", "onlineStoreUrl")
"""Attributes that hold the URL of a product's page."""


@dataclass(frozen=True, slots=True)
class AskedPicture:
    """The picture that was searched with: a preview (JPEG), its file, the region of it, and its
    name; that of a product has its sku."""

    preview: bytes
    data: bytes
    region: Region | None
    name: str
    sku: str | None = None


@uninterrupted
def request(sku: str) -> None:
    """Open the details of a product in the next run; a callback."""
    st.session_state[REQUESTED] = sku


@uninterrupted
def request_similar(sku: str) -> None:
    """Open the similar listings of a match in the next run; a callback."""
    st.session_state[SIMILAR_REQUESTED] = sku


def show(
    result: SearchResult | None, asked: AskedPicture | None, more_like: Callable[[str], None]
) -> None:
    """Draw a dialog, if requested; `result` is the current search result and `asked` the picture
    that was searched with, if there are any."""
    _show_similar(result)
    sku: str | None = st.session_state.pop(REQUESTED, None)
    if sku is None:
        return
    with errors_as_text("details of a product"):
        details = services().catalog.product(sku)
        title = escape_markdown(display_name(details.product))
        st.dialog(title, width="large")(_draw)(details, result, asked, more_like)


def _show_similar(result: SearchResult | None) -> None:
    sku: str | None = st.session_state.pop(SIMILAR_REQUESTED, None)
    matches = result.matches if result is not None else ()
    match = next((each for each in matches if each.product.sku == sku), None)
    if match is not None:
        with errors_as_text("similar listings"):
            name = escape_markdown(display_name(match.product))
            title = _("Similar listings of {name}").format(name=name)
            st.dialog(title, width="large")(_draw_similar)(
                services().search.similar_listings(match)
            )


def _draw_similar(match: Match) -> None:
    """Draw the listings of the same product, then those that have the same words only."""
    same = [fold.product for fold in match.folded]
    similar = [each.product for each in match.similar]
    thumbnails = services().catalog.thumbnails([each.sku for each in (*same, *similar)])
    if same:
        st.subheader(_("The same product"), anchor=False)
        notes = [fold_note(fold) for fold in match.folded]
        _draw_figures(same, thumbnails, notes)
    if similar:
        st.subheader(_("The same words, another product"), anchor=False)
        _draw_figures(similar, thumbnails, [_listing_text(each) for each in match.similar])
    if match.similar_count > len(similar):
        text = _("{shown} of {count} are shown, the nearest first")
        st.caption(text.format(shown=len(similar), count=similar_number(match)))


def _draw_figures(
    products: Sequence[Product], thumbnails: Thumbnails, notes: Sequence[str]
) -> None:
    with st.container(horizontal=True):
        for product, note in zip(products, notes, strict=True):
            with st.container(width=FIGURE_WIDTH):
                st.html(figure_html(product, thumbnails, note))


def fold_note(fold: Folded) -> str:
    """The rule by which a product is the same as a match, and what it rests on."""
    return ", ".join(map(engine_text, dict.fromkeys((fold.rule, fold.evidence))))


def _listing_text(listing: SimilarListing) -> str:
    distance = "" if listing.distance is None else f", {distance_text(listing.distance)}"
    return f"{_(REASONS[listing.reason])}{distance}"


def _draw(
    details: ProductDetails,
    result: SearchResult | None,
    asked: AskedPicture | None,
    more_like: Callable[[str], None],
) -> None:
    sku = details.product.sku
    if asked is not None and asked.sku == sku:
        asked = None  # it would be compared with itself
    heat = None
    if asked is not None and details.pictures and services().encoders.active().maps_regions:
        heat = _heat_if_chosen(asked, sku)
    if asked is not None and heat is not None:
        pictures = _heat_html(details, asked, heat)
    else:
        pictures = _pictures_html(details, asked)
    st.html(f"<div class=details>{pictures}{_facts_html(details)}</div>")
    matches = result.matches if result is not None else ()
    match = next((each for each in matches if each.product.sku == sku), None)
    if match is not None and result is not None:
        _draw_related(match, result)
    with st.container(horizontal=True):
        if st.button(
            _("More like this"), type="primary", key="more-open", icon=":material/image_search:",
            on_click=more_like, args=(sku,),
        ):  # fmt: skip
            st.rerun()
        if address := product_page(details.product):
            st.link_button(_("Product page"), address, icon=":material/open_in_new:")


def _heat_if_chosen(asked: AskedPicture, sku: str) -> MatchHeat | None:
    """Draw the switch of the heat map; returns the map if it is on."""
    if not st.toggle(
        _("Show what matches"), key="heat",
        help=_("Warm colours mark the parts of both pictures that made them alike."),
    ):  # fmt: skip
        return None
    with errors_as_text("a heat map"), services().admission.admitted():
        return services().explainer.explain(
            services().uploads.file(asked.data), sku, region=asked.region, untrusted=True
        )
    return None


def _heat_html(details: ProductDetails, asked: AskedPicture, heat: MatchHeat) -> str:
    """The picture that was searched with, and the product's most similar one, with their heat."""
    name, other = display_name(details.product), asked.name
    alt = _("Heat map of {shown}: what {other} has in common with it")
    photo = img_tag(heat.photo.jpeg(), alt.format(shown=other, other=name))
    product = img_tag(heat.product.jpeg(), alt.format(shown=name, other=other))
    similarity = _("similarity {number}").format(number=format_decimal(heat.similarity, 2))
    return (
        f"<div class=pictures><figure>{photo}<figcaption class=faint>{escape(other)}</figcaption>"
        f"</figure><figure>{product}<figcaption class=faint>{escape(name)}, "
        f"{escape(similarity)}</figcaption></figure></div>"
    )


def product_page(product: Product) -> str | None:
    """The URL of the product's page in the shop, if the catalogue has one."""
    for name in PAGE_NAMES:
        address = product.attributes.get(name)
        if isinstance(address, str) and re.match(r"https?://[^\s/]", address, re.IGNORECASE):
            return address
    return None


def _pictures_html(details: ProductDetails, asked: AskedPicture | None) -> str:
    """The pictures of a product, beside the one that was searched with."""
    name = display_name(details.product)
    figures = [
        f"<figure>{img_tag(picture.thumbnail, _picture_name(name, place))}"
        f"<figcaption class=faint>{escape(_origin(picture))}</figcaption></figure>"
        for place, picture in enumerate(details.pictures, start=1)
    ]
    own = ""
    if asked is not None:
        alt = _("{name}, for comparison").format(name=asked.name)
        own = (
            f"<figure>{img_tag(asked.preview, alt)}"
            f"<figcaption class=faint>{escape(asked.name)}</figcaption></figure>"
        )
    text = escape(_("This product has no picture."))
    no_picture = f"<p class=faint>{text}</p>"
    return f"<div class=pictures>{own}{''.join(figures) or no_picture}</div>"


def _picture_name(name: str, place: int) -> str:
    return _("{name}, picture {number}").format(name=name, number=place)


def _origin(picture: StoredPicture) -> str:
    text = _("{width} x {height} pixels, from {uri}")
    return text.format(width=picture.width, height=picture.height, uri=picture.uri)


def _facts_html(details: ProductDetails) -> str:
    product = details.product
    columns = {name: column_title(name) for name in ("brand", "category", "colour", "year")}
    facts = {
        "SKU": product.sku,
        **{name: getattr(product, column) for column, name in columns.items()},
        column_title("price"): format_price(product),
        **product.attributes,
    }
    pairs = [
        f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>"
        for name, value in facts.items()
        if value not in (None, "")
    ]
    return f"<dl class=facts>{''.join(pairs)}</dl>"


def _draw_related(match: Match, result: SearchResult) -> None:
    """Draw the products that were folded into this match or dropped because of it."""
    dropped = [drop for drop in result.dropped if drop.lost_to == match.product.sku]
    if match.similar_count:
        match = services().search.similar_listings(match)
    for heading, lines in (
        (_("The same product"), [_fold_text(fold) for fold in match.folded]),
        (same_picture_text(match), [_listed_text(each) for each in match.listed]),
        (_("The same words, another product"), [_similar_text(each) for each in match.similar]),
        (_("Hidden"), [drop_text(drop) for drop in dropped]),
    ):
        if lines:
            st.subheader(heading, anchor=False)
            items = "".join(f"<li>{escape(line)}</li>" for line in lines)
            st.html(f"<ul class=twins>{items}</ul>")


def _listed_text(product: Product) -> str:
    return " · ".join((display_name(product), product.sku))


def _fold_text(fold: Folded) -> str:
    product = fold.product
    facts = [display_name(product), str(product.year or ""), format_price(product), product.sku]
    facts += map(engine_text, dict.fromkeys((fold.rule, fold.evidence)))
    if fold.distance is not None:
        facts.append(distance_text(fold.distance))
    if fold.similarity is not None:
        number = format_decimal(fold.similarity, 3)
        facts.append(_("similarity {number}").format(number=number))
    return " · ".join(filter(None, facts))


def _similar_text(listing: SimilarListing) -> str:
    product = listing.product
    facts = [display_name(product), str(product.year or ""), format_price(product), product.sku]
    return " · ".join(filter(None, [*facts, _listing_text(listing)]))
