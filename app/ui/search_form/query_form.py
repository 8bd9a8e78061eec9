"""The query part of the search form: one field, a picture or product, and the query they make."""

from __future__ import annotations

import re

import streamlit as st

from app.types import Query
from app.ui.components import page_input, result_pages
from app.ui.search_form import picture_inputs
from app.ui.search_form.picture_inputs import PictureInput
from app.ui.search_form.session_state import (
    begin_with,
    bound,
    current,
    is_current,
    put,
    refer_to,
    renew,
)
from app.ui.search_form.state import SearchFormState
from app.ui.shared import uninterrupted
from app.ui.translation import _, language

URL = re.compile(r"(data:|[a-z][a-z0-9+.-]*://)\S*", re.IGNORECASE)
"""What counts as the URL of an image in the field."""

MAX_CHARS = 2000


def draw() -> PictureInput:
    """Draw the query inputs; returns the pictures, which the form state does not hold."""
    page_input.draw(_search_address)
    arguments = bound("words")
    st.text_input(
        _("Search"), current().words, placeholder=_("Words, SKU, GTIN or image URL"),
        max_chars=MAX_CHARS, label_visibility="collapsed",
        **(arguments | {"on_change": _submit, "args": (arguments["key"],)}),
    )  # fmt: skip
    return picture_inputs.draw()


@uninterrupted
def _submit(key: str) -> None:
    """Search with the text of the field: an image by its URL, or words, skus and gtins."""
    if not is_current(key, "words"):
        return
    text = st.session_state[key].strip()
    if URL.fullmatch(text):
        renew("words")  # the field shows the words again
        begin_with(link=text)
    else:
        put(words=text)


@uninterrupted
def _search_address(address: str) -> None:
    if URL.fullmatch(address) and len(address) <= MAX_CHARS:
        begin_with(link=address)


def build_query(form: SearchFormState, pictures: PictureInput) -> Query | None:
    """The query without filters and paging; None while there is nothing to search for."""
    if pictures.invalid or not (pictures.photos or form.sku or form.words):
        return None
    files = [photo.data for photo in pictures.photos]
    return Query(
        picture=files[0] if files else None,
        more_pictures=tuple(files[1:]),
        region=pictures.region,
        sku=form.sku or None,
        words=form.words or None,
        words_weight=form.weight,
        words_by=None if form.reader == "automatic" else form.reader,
        words_language="de" if language() == "de" else None,
        without_words=form.without or None,
        untrusted=True,
    )


@uninterrupted
def more_like(sku: str) -> None:
    """Search for products like this one, with the same filters; a callback."""
    refer_to(sku=sku, words="", without="")
    result_pages.request_scroll()
