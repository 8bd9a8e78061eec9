"""Streamlit's server of the pages, whose metrics and health are served from its start on."""

from __future__ import annotations

from streamlit.web import cli

from app.ui.shared import prepare

if __name__ == "__main__":
    prepare()
    cli.main(prog_name="streamlit")
