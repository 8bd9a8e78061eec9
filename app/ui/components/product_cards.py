"""Cards: products in a grid, each with its picture, what is known of it, and what can be done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import streamlit as st

from app.search.explain import price_text
from app.types import Match, Product
from app.ui.formatting import attribute, image
from app.ui.shared import plain


@dataclass(frozen=True, slots=True)
class CardActions:
    """What the buttons of a card do with the sku of its product."""

    more_like: Callable[[str], None]
    details: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Card:
    """A product, a JPEG of it, and the match it is, if it was found by a search."""

    product: Product
    thumbnail: bytes
    match: Match | None = None


def grid(cards: Sequence[Card], doing: CardActions) -> None:
    """Draw the cards, side by side and of one height in a row."""
    with st.container(key="cards", horizontal=True):
        for place, card in enumerate(cards):
            with st.container(key=f"card-{place}"):
                st.html(_html(card))
                _buttons(place, card.product, doing)


def name_of(product: Product) -> str:
    """What a product is called: its title, or else its sku."""
    return product.title.strip() or product.sku


def _buttons(place: int, product: Product, doing: CardActions) -> None:
    """The emphasised part of a label is there for those who hear it, see `style`."""
    name = plain(name_of(product))
    with st.container(key=f"doing-{place}", horizontal=True):
        st.button(
            f"More like this *{name}*", key=f"more-{place}", type="tertiary",
            on_click=doing.more_like, args=(product.sku,),
        )  # fmt: skip
        st.button(
            f"Details *of {name}*", key=f"details-{place}", type="tertiary",
            on_click=doing.details, args=(product.sku,),
        )  # fmt: skip


def _html(card: Card) -> str:
    """A card as HTML in which every text is escaped."""
    product, title = card.product, name_of(card.product)
    facts = (product.brand, product.category, product.colour, product.year)
    return (
        f"<div class=card>{image(card.thumbnail, title)}"
        f"<div class=words><h3 class=title title={attribute(title)}>{escape(title)}</h3>"
        f"{_similarity(card.match) if card.match else ''}"
        f"<div class=faint>{escape(' · '.join(str(fact) for fact in facts if fact))}</div>"
        f"{_folded(card.match) if card.match else ''}"
        f"<div class=last><span>{escape(price_text(product))}</span>"
        f"<span class=faint>{escape(product.sku)}</span></div></div></div>"
    )


def _similarity(match: Match) -> str:
    if match.similarity is None:
        return "<div class=similarity>found by its words</div>"
    means = f" · {match.means}" if match.means else ""
    filled = min(1.0, max(0.0, match.similarity))
    return (
        f"<div class=similarity>similarity {match.similarity:.3f}{means}"
        f'<div class=bar><div style="width:{filled:.1%}"></div></div></div>'
    )


def _folded(match: Match) -> str:
    """The years, or else the skus, of the products that came as this one, and why they did."""
    if not match.folded:
        return ""
    also = [str(fold.product.year or fold.product.sku) for fold in match.folded]
    rules = ", ".join(dict.fromkeys(fold.rule for fold in match.folded))
    years = ", ".join(dict.fromkeys(also))
    return f"<div class=faint>also {escape(years)} ({escape(rules)})</div>"
