"""The application that Streamlit serves: the script of the pages behind our middleware.

`streamlit run` finds it here by its name, and reads options from flags and `STREAMLIT_…` variables,
which `st.App.run` does not.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware

from app.ui.page_files import PageFiles

streamlit_app = st.App(Path(__file__).with_name("main.py"), middleware=[Middleware(PageFiles)])
