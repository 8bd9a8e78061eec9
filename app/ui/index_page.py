"""The index page: the builds, and a button that makes another."""

from __future__ import annotations

import streamlit as st

from app.ui.frame import plain, services
from app.ui.operating import offer_rebuild


def show() -> None:
    """Draw the page."""
    st.title("Index", anchor=False)
    offer_rebuild(services, plain)
