"""The search page: one picture in, the products that look like it out."""

from __future__ import annotations

import streamlit as st

from app.ui.cards import grid
from app.ui.frame import plain, sentences, services
from app.values import Plan, Query, SearchResult

SHOWN_SIDE = 400
"""Pixels of the query picture."""


def show() -> None:
    """Draw the page."""
    st.title("Lookalike", anchor=False)
    st.write("Upload a photo and see the products that look like it.")
    left, right = st.columns([1, 3], gap="large")
    with left:
        photo = st.file_uploader("Photo of a product", help="JPEG, PNG, WebP, HEIC and others")
        k = st.slider("Products to show", 4, 48, 12, step=4)
    if photo is None:
        return
    data = photo.getvalue()
    with right, sentences("a search"):
        with st.spinner("Searching …"):
            result = services().search.search(Query(picture=data, k=k, stranger=True, fold=True))
            picture = services().sandbox.decode(data, at_least=SHOWN_SIDE)
        left.image(picture, "Your photo", width="stretch")
        _show(result)


def _show(result: SearchResult) -> None:
    count = len(result.matches)
    if count:
        st.subheader(f"{count} product{'s' * (count != 1)}, most similar first", anchor=False)
        st.html(grid(result.matches))
    _explain(result.plan)


def _explain(plan: Plan) -> None:
    if plan.shortfall:
        st.info(plain(f"Fewer than asked: {plan.shortfall}."))
    times = ", ".join(f"{name} {ms:.0f}" for name, ms in plan.ms.items())
    how = f"Answered by {plan.path}: {plan.reason}. Model: {plan.model}. Milliseconds: {times}."
    st.caption(plain(how))
