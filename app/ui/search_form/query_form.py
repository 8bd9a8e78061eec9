"""Asking: a picture or a product, words beside it or alone, and the query they make."""

from __future__ import annotations

from typing import get_args

import streamlit as st

from app.types import Query
from app.ui.components import result_pages
from app.ui.search_form.picture_inputs import UploadedPictures, given
from app.ui.search_form.session_state import change, key, said
from app.ui.search_form.state import InputMethod, SearchFormState, TextReader

WAYS = {"photo": "Photo", "link": "Link", "camera": "Camera", "product": "Product"}
READERS = {"automatic": "Automatic", "model": "Model", "catalogue": "Catalogue"}


def ask() -> UploadedPictures:
    """Draw the ways to ask; gives the pictures, all else is in the wish."""
    st.segmented_control(
        "Search with", get_args(InputMethod), required=True, format_func=WAYS.__getitem__,
        key=key("by"), label_visibility="collapsed", width="stretch",
    )  # fmt: skip
    asked = given(said("by"))
    st.text_input("Words", key=key("words"), placeholder="for example: blue lamp", max_chars=1000)
    _more_options(bool(asked.photos) or said("by") == "product")
    return asked


def query(wish: SearchFormState, asked: UploadedPictures) -> Query | None:
    """What is asked for, without filters and pages; None if it is nothing yet."""
    sku = wish.sku.strip() if wish.by == "product" else ""
    words, without = wish.words.strip(), wish.without.strip()
    if asked.wrong or not (asked.photos or sku or words):
        return None
    pictures = [photo.data for photo in asked.photos]
    return Query(
        picture=pictures[0] if pictures else None,
        more_pictures=tuple(pictures[1:]),
        region=asked.region,
        sku=sku or None,
        words=words or None,
        words_weight=wish.weight,
        words_by=None if wish.reader == "automatic" else wish.reader,
        without_words=without or None,
        stranger=True,
    )


def more_like(sku: str) -> None:
    """Ask for products like this one; the filters stay."""
    change(by="product", sku=sku, words="", without="")
    result_pages.to_the_top()


def _more_options(beside: bool) -> None:
    with st.expander("More options", key="search_options"):
        if said("words").strip() and beside:
            st.slider("Weight of the words", 0.0, 1.0, step=0.05, key=key("weight"))
        st.segmented_control(
            "Words are read by", get_args(TextReader), required=True,
            format_func=READERS.__getitem__, key=key("reader"), width="stretch",
            help="The model reads them as it reads pictures, if it can; the catalogue looks them "
            "up in titles, brands, categories and colours. Automatic is both.",
        )  # fmt: skip
        st.text_input(
            "But not like these words", key=key("without"), max_chars=1000,
            help="Needs a model that reads words.",
        )  # fmt: skip
