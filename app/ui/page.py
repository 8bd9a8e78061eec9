"""The upload page: one picture in, the products that look like it out."""

from __future__ import annotations

import logging
import re

import streamlit as st

from app.bootstrap import App
from app.errors import LookalikeError
from app.values import Match, Plan, Query, SearchResult

COLUMNS = 4
_log = logging.getLogger("lookalike.page")


@st.cache_resource(show_spinner="Starting …")
def services() -> App:
    """The services all sessions share; made once in this process."""
    return App()


def plain(words: str) -> str:
    """Text of the catalogue as Markdown that shows it letter for letter."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(words.split()))


def main() -> None:
    st.set_page_config(page_title="Lookalike", page_icon="🔎", layout="wide")
    st.title("Lookalike")
    st.write("Upload a photo and see the products that look like it.")
    photo = st.file_uploader("Photo of a product", help="JPEG, PNG, WebP, HEIC and others")
    k = st.slider("Products to show", 4, 48, 12, step=4)
    if photo is None:
        return
    result = _asked(photo.getvalue(), k)
    if result is not None:
        _show(photo.getvalue(), result)


def _asked(data: bytes, k: int) -> SearchResult | None:
    """The answer, or a sentence on the page that says why there is none."""
    try:
        with st.spinner("Searching …"):
            return services().search.search(Query(picture=data, k=k, stranger=True))
    except LookalikeError as exc:
        st.error(plain(str(exc)))
    except Exception:
        _log.exception("a search failed")
        st.error("Something went wrong here; it was logged. Please try again.")
    return None


def _show(data: bytes, result: SearchResult) -> None:
    left, right = st.columns([1, 4])
    with left:
        st.subheader("Your photo")
        picture = services().sandbox.decode(data, at_least=300)
        st.image(picture, width="stretch")
    with right:
        st.subheader(f"{len(result.matches)} products")
        for start in range(0, len(result.matches), COLUMNS):
            row = result.matches[start : start + COLUMNS]
            for cell, match in zip(st.columns(COLUMNS), row, strict=False):
                with cell.container(border=True):
                    _card(match)
    _explain(result.plan)


def _card(match: Match) -> None:
    product = match.product
    st.image(match.thumbnail, width="stretch")
    st.markdown(f"**{plain(product.title or product.sku)}**")
    st.progress(min(1.0, max(0.0, match.similarity)), f"similarity {match.similarity:.3f}")
    facts = (product.brand, product.category, product.colour, product.year)
    st.caption(plain(" · ".join(str(fact) for fact in facts if fact)))
    if product.price is not None:
        st.markdown(plain(f"{product.price:.2f} {product.currency or ''}"))
    st.caption(plain(product.sku))


def _explain(plan: Plan) -> None:
    if plan.shortfall:
        st.info(plain(f"Fewer than asked: {plan.shortfall}."))
    times = ", ".join(f"{name} {ms:.0f}" for name, ms in plan.ms.items())
    st.caption(plain(f"Answered by {plan.path}: {plan.reason}. Milliseconds: {times}."))


main()
