"""The script that Streamlit runs: lists the pages."""

from __future__ import annotations

import streamlit as st

from app.ui.components import language_choice
from app.ui.translation import _
from app.ui.views import catalogue as catalogue_view
from app.ui.views import duplicates as duplicates_view
from app.ui.views import index as index_view
from app.ui.views import search as search_view


def main() -> None:
    """Draw the page that the URL names."""
    st.set_page_config(page_title="Lookalike", page_icon="🔎", layout="wide")
    language_choice.restore()
    pages = [
        st.Page(search_view.show, title=_("Search"), icon=":material/search:", default=True),
        st.Page(
            duplicates_view.show,
            title=_("Duplicates"),
            icon=":material/content_copy:",
            url_path="duplicates",
        ),
        st.Page(
            catalogue_view.show,
            title=_("Catalogue"),
            icon=":material/inventory_2:",
            url_path="health",
        ),
        st.Page(index_view.show, title=_("Index"), icon=":material/stacks:", url_path="index"),
    ]
    st.navigation(pages, position="top").run()
    language_choice.draw()


main()
