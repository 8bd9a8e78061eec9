"""Lists of duplicate groups and of similar listings, with pictures, evidence and buttons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

import streamlit as st

from app.duplicates.evidence import NOTHING_TO_COMPARE, OTHER_GTIN, OTHER_PICTURES, VERDICT
from app.duplicates.groups import DuplicateGroup, FoldedCandidate, SimilarPair
from app.types import Product
from app.ui.components.product_cards import display_name
from app.ui.engine_texts import distance_text, engine_text
from app.ui.formatting import escape_markdown, format_number, format_price, img_tag
from app.ui.translation import N_, _, ngettext

MAX_MEMBERS = 24
"""Members of one group that are drawn."""

STYLE = """<style>
.listing { margin: 0; font-size: .875rem; line-height: 1.4; overflow-wrap: anywhere }
.listing img { width: 100%; aspect-ratio: 1; object-fit: contain; background: #fff; display: block;
  border-radius: .4rem; border: 1px solid color-mix(in srgb, currentColor 14%, transparent) }
.listing .none { aspect-ratio: 1; display: grid; place-items: center; opacity: .75 }
.listing b { display: block; margin-top: .3rem }
.listing span { display: block; color: color-mix(in srgb, currentColor 72%, transparent) }
</style>"""

REASONS = {
    OTHER_PICTURES: N_("their pictures differ"),
    NOTHING_TO_COMPARE: N_("there is no picture to compare"),
    OTHER_GTIN: N_("their gtins differ"),
    VERDICT: N_("a verdict says that they are different products"),
}
"""Why listings with the same words are not one product, as the page says it."""

FIGURE_WIDTH = 170
"""Pixels."""

Thumbnails = Mapping[str, bytes]
"""JPEG by sku; products without a picture are left out."""


def draw_group(
    group: DuplicateGroup,
    thumbnails: Thumbnails,
    not_the_same: Callable[[str, str], None] | None,
    accept: Callable[[DuplicateGroup], None] | None,
) -> None:
    """Draw a group; `not_the_same` is called with the skus of the keeper and of a member, `accept`
    with the group.

    Without them no buttons are drawn.
    """
    with st.container(border=True):
        kept = group.keeper.product
        name = escape_markdown(display_name(kept))
        with st.container(horizontal=True, vertical_alignment="center"):
            count = len(group.skus)
            text = ngettext(
                "{count} listing is one product", "{count} listings are one product", count
            )
            st.markdown(f"**{name}** · {text.format(count=format_number(count))}")
            if accept is not None and open_pairs(group):
                st.button(
                    _("Accept this group"), key=f"accept {kept.sku!r}", icon=":material/check:",
                    on_click=accept, args=(group,),
                    help=_("Record that all of them are the same product"),
                )  # fmt: skip
        with st.container(horizontal=True):
            with st.container(width=FIGURE_WIDTH):
                st.html(figure_html(kept, thumbnails, _("shown for the group")))
            for fold in group.folded[:MAX_MEMBERS]:
                _draw_member(kept.sku, fold, thumbnails, not_the_same)
        if len(group.folded) > MAX_MEMBERS:
            more = format_number(len(group.folded) - MAX_MEMBERS)
            st.caption(_("and {count} more").format(count=more))


def open_pairs(group: DuplicateGroup) -> list[tuple[str, str]]:
    """The skus of the keeper and of each member that no verdict joins to it."""
    return [
        (group.keeper.sku, fold.candidate.sku) for fold in group.folded if fold.evidence != VERDICT
    ]


def draw_similar(
    pair: SimilarPair, thumbnails: Thumbnails, the_same: Callable[[str, str], None] | None
) -> None:
    """Draw two similar listings; `the_same` is called with their skus."""
    with st.container(border=True):
        text = _("{rule}, but {reason}").format(
            rule=engine_text(pair.rule), reason=similar_text(pair)
        )
        st.markdown(escape_markdown(text[:1].upper() + text[1:]))
        with st.container(horizontal=True, vertical_alignment="center"):
            for product in (pair.product, pair.other):
                with st.container(width=FIGURE_WIDTH):
                    st.html(figure_html(product, thumbnails, ""))
            skus = pair.product.sku, pair.other.sku
            if the_same is not None and pair.reason != "verdict":
                st.button(
                    _("The same product"), key=f"one {skus!r}", on_click=the_same, args=skus,
                    help=_("{first} and {second} are one").format(
                        first=escape_markdown(skus[0]), second=escape_markdown(skus[1])
                    ),
                )  # fmt: skip


def similar_text(pair: SimilarPair) -> str:
    """Why two listings are not one product, with the distance of their pictures."""
    distance = "" if pair.distance is None else f" ({distance_text(pair.distance)})"
    return f"{_(REASONS[pair.reason])}{distance}"


def evidence_text(fold: FoldedCandidate) -> str:
    """The rule of a fold, what it rests on, and the distance of the pictures."""
    parts = list(map(engine_text, dict.fromkeys((fold.rule, fold.evidence))))
    if fold.distance is not None:
        parts.append(distance_text(fold.distance))
    return ", ".join(parts)


def figure_html(product: Product, thumbnails: Thumbnails, note: str) -> str:
    """A product with its picture, title, sku and facts as HTML; all text is escaped."""
    title = display_name(product)
    jpeg = thumbnails.get(product.sku)
    none = escape(_("No picture"))
    picture = f"<div class=none>{none}</div>"
    if jpeg is not None:
        picture = img_tag(jpeg, title)
    facts = [product.sku, str(product.year or ""), format_price(product)]
    lines = [" · ".join(filter(None, facts)), note]
    text = "".join(f"<span>{escape(line)}</span>" for line in lines if line)
    return f"{STYLE}<figure class=listing>{picture}<b>{escape(title)}</b>{text}</figure>"


def drawn_skus(group: DuplicateGroup) -> tuple[str, ...]:
    """The skus of a group whose pictures are drawn."""
    return group.skus[: 1 + MAX_MEMBERS]


def skus_of_pairs(pairs: Sequence[SimilarPair]) -> list[str]:
    """The skus of both products of all pairs."""
    return sorted({each.sku for pair in pairs for each in (pair.product, pair.other)})


def _draw_member(
    kept: str,
    fold: FoldedCandidate,
    thumbnails: Thumbnails,
    not_the_same: Callable[[str, str], None] | None,
) -> None:
    product = fold.candidate.product
    note = evidence_text(fold)
    if fold.matched_by != kept:
        like = _("like {sku}").format(sku=fold.matched_by)
        note = f"{note}, {like}"
    with st.container(width=FIGURE_WIDTH):
        st.html(figure_html(product, thumbnails, note))
        if not_the_same is not None:
            st.button(
                _("Not the same"), key=f"apart {kept!r} {product.sku!r}", type="tertiary",
                on_click=not_the_same, args=(kept, product.sku),
                help=_("{sku} is another product").format(sku=escape_markdown(product.sku)),
            )  # fmt: skip
