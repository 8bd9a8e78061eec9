"""Product cards in a grid: picture, similarity, facts and buttons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import streamlit as st

from app.types import Match, Product
from app.ui.engine_texts import engine_text, same_picture_text
from app.ui.formatting import (
    escape_markdown,
    format_decimal,
    format_number,
    format_price,
    html_attribute,
    img_tag,
)
from app.ui.translation import _, ngettext


@dataclass(frozen=True, slots=True)
class CardActions:
    """Callbacks of the buttons of a card; each gets the sku, `pin` the product and its JPEG."""

    more_like: Callable[[str], None]
    details: Callable[[str], None]
    similar: Callable[[str], None]
    pin: Callable[[Product, bytes | None], None]
    is_pinned: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Card:
    """A product with a JPEG of it, if there is one, and the match if a search found it."""

    product: Product
    thumbnail: bytes | None
    match: Match | None = None


def draw_grid(cards: Sequence[Card], actions: CardActions) -> None:
    """Draw the cards side by side, in rows of equal height."""
    with st.container(key="cards", horizontal=True):
        for place, card in enumerate(cards):
            with st.container(key=f"card-{place}"):
                st.html(_html(card))
                _buttons(place, card, actions)


def display_name(product: Product) -> str:
    """The title of a product, or its sku if it has no title."""
    return product.title.strip() or product.sku


def similar_label(match: Match) -> str:
    """How many other listings are like a match, and the years of those that are the same product:
    "+1 similar listing (2012)". Empty without any."""
    count = len(match.folded) + match.similar_count
    if not count:
        return ""
    years = dict.fromkeys(str(fold.product.year) for fold in match.folded if fold.product.year)
    number = f"{format_number(count)}{'+' if match.similar_more else ''}"
    text = ngettext("+{number} similar listing", "+{number} similar listings", count)
    text = text.format(number=number)
    return f"{text} ({', '.join(years)})" if years else text


def _buttons(place: int, card: Card, actions: CardActions) -> None:
    """Draw the buttons; the emphasised part of a label is for screen readers only, see css.py."""
    product, match = card.product, card.match
    name = escape_markdown(display_name(product))
    with st.container(key=f"actions-{place}", horizontal=True):
        st.button(
            _("More like this *{name}*").format(name=name), key=f"more-{place}", type="tertiary",
            on_click=actions.more_like, args=(product.sku,),
        )  # fmt: skip
        st.button(
            _("Details *of {name}*").format(name=name), key=f"details-{place}", type="tertiary",
            on_click=actions.details, args=(product.sku,),
        )  # fmt: skip
        pinned = actions.is_pinned(product.sku)
        pin = _("*Unpin {name}*") if pinned else _("*Pin {name}*")
        st.button(
            pin.format(name=name), key=f"pin-{place}", icon=":material/keep:",
            type="primary" if pinned else "tertiary",  # primary: css.py fills the icon
            on_click=actions.pin, args=(product, card.thumbnail),
        )  # fmt: skip
        if match is not None and similar_label(match):
            of = _("*of {name}*").format(name=name)
            st.button(
                f"{escape_markdown(similar_label(match))} {of}",
                key=f"similar-{place}", type="tertiary",
                on_click=actions.similar, args=(product.sku,),
            )  # fmt: skip


def _html(card: Card) -> str:
    """A card as HTML, with all text escaped."""
    product, title = card.product, display_name(card.product)
    facts = (product.brand, product.category, product.colour, product.year)
    return (
        f"<div class=card>{_picture(card, title)}"
        f"<div class=words><h3 class=title title={html_attribute(title)}>{escape(title)}</h3>"
        f"{_similarity(card.match) if card.match else ''}"
        f"<div class=faint>{escape(' · '.join(str(fact) for fact in facts if fact))}</div>"
        f"{_same_picture(card.match) if card.match else ''}"
        f"<div class=last><span>{escape(format_price(product))}</span>"
        f"<span class=faint>{escape(product.sku)}</span></div></div></div>"
    )


def _picture(card: Card, title: str) -> str:
    if card.thumbnail is None:
        none = escape(_("No picture"))
        return f'<div class="shown none">{none}</div>'
    return f"<div class=shown>{img_tag(card.thumbnail, title)}</div>"


def _similarity(match: Match) -> str:
    if match.similarity is None:
        text = escape(_("Text match"))
        return f"<div class=similarity>{text}</div>"
    text = _("Similarity {number}").format(number=format_decimal(match.similarity, 2))
    if match.means:
        text = f"{text} · {engine_text(match.means)}"
    filled = min(1.0, max(0.0, match.similarity))
    return (
        f"<div class=similarity>{escape(text)}"
        f'<div class=bar><div style="width:{filled:.1%}"></div></div></div>'
    )


def _same_picture(match: Match) -> str:
    text = same_picture_text(match)
    return f"<div class=faint>{escape(text)}</div>" if text else ""
