"""Where Streamlit begins: which pages there are."""

from __future__ import annotations

import streamlit as st

from app.ui import duplicates_page, health_page, index_page, search_page


def main() -> None:
    st.set_page_config(page_title="Lookalike", page_icon="🔎", layout="wide")
    pages = [
        st.Page(search_page.show, title="Search", icon=":material/search:", default=True),
        st.Page(
            duplicates_page.show,
            title="Duplicates",
            icon=":material/content_copy:",
            url_path="duplicates",
        ),
        st.Page(
            health_page.show,
            title="Catalogue",
            icon=":material/inventory_2:",
            url_path="health",
        ),
        st.Page(index_page.show, title="Index", icon=":material/stacks:", url_path="index"),
    ]
    st.navigation(pages, position="top").run()


main()
