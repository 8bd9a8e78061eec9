"""Details: everything about one product, in a dialog over the results."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import streamlit as st

from app.search.explain import price_text
from app.types import Folded, Match, ProductDetails, SearchResult
from app.ui.components.answer_footer import why
from app.ui.components.product_cards import name_of
from app.ui.formatting import image
from app.ui.shared import plain, sentences, services

OPEN = "search_open"


def ask_for(sku: str) -> None:
    """Open the details of a product in the run that follows."""
    st.session_state[OPEN] = sku


def show(result: SearchResult | None, more_like: Callable[[str], None]) -> None:
    """The dialog, if somebody asked for it; `result` is where the product was found, if it was."""
    sku: str | None = st.session_state.pop(OPEN, None)
    if sku is None:
        return
    with sentences("details of a product"):
        found = services().catalog.product(sku)
        title = plain(name_of(found.product))
        st.dialog(title, width="medium")(_draw)(found, result, more_like)


def _draw(
    found: ProductDetails, result: SearchResult | None, more_like: Callable[[str], None]
) -> None:
    st.html(f"<div class=details>{_pictures(found)}{_facts(found)}</div>")
    matches = result.matches if result is not None else ()
    match = next((each for each in matches if each.product.sku == found.product.sku), None)
    if match is not None and result is not None:
        _beside(match, result)
    if st.button(
        "More like this", type="primary", key="more-open", icon=":material/image_search:",
        on_click=more_like, args=(found.product.sku,),
    ):  # fmt: skip
        st.rerun()


def _pictures(found: ProductDetails) -> str:
    name = name_of(found.product)
    figures = [
        f"<figure>{image(picture.thumbnail, f'{name}, picture {place}')}"
        f"<figcaption class=faint>{picture.width} x {picture.height} pixels, from "
        f"{escape(picture.uri)}</figcaption></figure>"
        for place, picture in enumerate(found.pictures, start=1)
    ]
    without = "<p class=faint>This product has no picture.</p>"
    return f"<div class=pictures>{''.join(figures) or without}</div>"


def _facts(found: ProductDetails) -> str:
    product = found.product
    facts = {
        "Sku": product.sku, "Brand": product.brand, "Category": product.category,
        "Colour": product.colour, "Year": product.year, "Price": price_text(product),
        **product.attributes,
    }  # fmt: skip
    pairs = [
        f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>"
        for name, value in facts.items()
        if value not in (None, "")
    ]
    return f"<dl class=facts>{''.join(pairs)}</dl>"


def _beside(match: Match, result: SearchResult) -> None:
    """What was folded into this match, and what was left out because of it."""
    left_out = [drop for drop in result.dropped if drop.lost_to == match.product.sku]
    for heading, lines in (
        ("The same product", [_twin(fold) for fold in match.folded]),
        ("Left out", [why(drop) for drop in left_out]),
    ):
        if lines:
            st.subheader(heading, anchor=False)
            items = "".join(f"<li>{escape(line)}</li>" for line in lines)
            st.html(f"<ul class=twins>{items}</ul>")


def _twin(fold: Folded) -> str:
    product = fold.product
    said = [name_of(product), str(product.year or ""), price_text(product), product.sku, fold.rule]
    if fold.similarity is not None:
        said.append(f"similarity {fold.similarity:.3f}")
    return " · ".join(filter(None, said))
