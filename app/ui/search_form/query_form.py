"""The query part of the search form: picture or product, words, and the query built from them."""

from __future__ import annotations

from typing import get_args

import streamlit as st

from app.types import Query
from app.ui.components import result_pages
from app.ui.search_form import picture_inputs
from app.ui.search_form.picture_inputs import PictureInput
from app.ui.search_form.session_state import update, widget_key, widget_value
from app.ui.search_form.state import InputMethod, SearchFormState, TextReader

INPUT_LABELS = {"photo": "Photo", "link": "Link", "camera": "Camera", "product": "Product"}
READER_LABELS = {"automatic": "Automatic", "model": "Model", "catalogue": "Catalogue"}


def draw() -> PictureInput:
    """Draw the query inputs; returns the pictures, which the form state does not hold."""
    st.segmented_control(
        "Search with", get_args(InputMethod), required=True, format_func=INPUT_LABELS.__getitem__,
        key=widget_key("by"), label_visibility="collapsed", width="stretch",
    )  # fmt: skip
    method = widget_value("by")
    pictures = picture_inputs.draw(method)
    st.text_input(
        "Words", key=widget_key("words"), placeholder="for example: blue lamp", max_chars=1000
    )
    _more_options(has_picture=bool(pictures.photos) or method == "product")
    return pictures


def build_query(form: SearchFormState, pictures: PictureInput) -> Query | None:
    """The query without filters and paging; None while there is nothing to search for."""
    sku = form.sku.strip() if form.by == "product" else ""
    words, without = form.words.strip(), form.without.strip()
    if pictures.invalid or not (pictures.photos or sku or words):
        return None
    files = [photo.data for photo in pictures.photos]
    return Query(
        picture=files[0] if files else None,
        more_pictures=tuple(files[1:]),
        region=pictures.region,
        sku=sku or None,
        words=words or None,
        words_weight=form.weight,
        words_by=None if form.reader == "automatic" else form.reader,
        without_words=without or None,
        untrusted=True,
    )


def more_like(sku: str) -> None:
    """Search for products like this one, with the same filters; a callback."""
    update(by="product", sku=sku, words="", without="")
    result_pages.request_scroll()


def _more_options(*, has_picture: bool) -> None:
    """Draw the rarely used inputs; the weight matters only for words next to a picture."""
    with st.expander("More options", key="search_options"):
        if widget_value("words").strip() and has_picture:
            st.slider("Weight of the words", 0.0, 1.0, step=0.05, key=widget_key("weight"))
        st.segmented_control(
            "Words are read by", get_args(TextReader), required=True,
            format_func=READER_LABELS.__getitem__, key=widget_key("reader"), width="stretch",
            help="The model reads them as it reads pictures, if it can; the catalogue looks them "
            "up in titles, brands, categories and colours. Automatic is both.",
        )  # fmt: skip
        st.text_input(
            "But not like these words", key=widget_key("without"), max_chars=1000,
            help="Needs a model that reads words.",
        )  # fmt: skip
