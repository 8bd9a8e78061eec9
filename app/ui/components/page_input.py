"""Asking from anywhere on the page: paste, drop, and "/" for the field; without anything to see."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import streamlit as st

from app.ui.shared import uninterrupted
from app.ui.translation import _

_component = st.components.v2.component(
    "lookalike_page_input",
    js=(Path(__file__).parent / "page_input.js").read_text(encoding="utf-8"),
)

KEY = "search_page_input"


def draw(search_address: Callable[[str], None]) -> None:
    """Listen on the page; `search_address` gets the URL of an image that was pasted or dropped."""
    with st.container(key="listen"):
        _component(
            key=KEY, data={"drop": _("Drop to search"), "upload": _("Upload")}, height=1,
            on_address_change=partial(_given, search_address),
        )  # fmt: skip


@uninterrupted
def _given(search_address: Callable[[str], None]) -> None:
    address = st.session_state[KEY]["address"]
    if isinstance(address, str):
        search_address(address)
