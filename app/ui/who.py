"""Who is at the page: signed in where that is set up, or known by the name they gave."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from app.ui.frame import plain

NAME = "judge"
"""Where a session keeps the name that was given."""

LONGEST = 80


def judge() -> str | None:
    """The name that verdicts are recorded under; without one, None and a way to give it."""
    signed_in = getattr(st.user, "is_logged_in", None)  # is there only where signing in is set up
    if signed_in is None:
        return _named()
    if signed_in:
        return _signed_in()
    _sign_in()
    return None


def _named() -> str | None:
    name: str | None = st.session_state.get(NAME)
    if name is None:
        _ask()
        return None
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(plain(f"Judging as {name}"), width="content")
        if st.button("Change name", type="tertiary"):
            del st.session_state[NAME]
            st.rerun()
    return name


def _ask() -> None:
    with st.form("who", width=420):
        name = st.text_input(
            "Your name",
            max_chars=LONGEST,
            help="It is kept beside each verdict, so that others know whom to ask.",
        )
        if st.form_submit_button("Start judging", type="primary"):
            if name.strip():
                st.session_state[NAME] = name.strip()
                st.rerun()
            st.error("Type your name first: a verdict has a name to it.")


def _signed_in() -> str:
    name = next((str(st.user[key]) for key in ("email", "name", "sub") if st.user.get(key)), "")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(plain(f"Judging as {name}"), width="content")
        st.button("Sign out", type="tertiary", on_click=st.logout)
    return name


def _sign_in() -> None:
    st.info("Sign in to judge: your name is kept beside each verdict.")
    for provider in _providers():
        label = f"Sign in with {plain(provider)}" if provider else "Sign in"
        if st.button(label, type="primary", key=f"sign in {provider}"):
            st.login(provider)


def _providers() -> list[str | None]:
    """The providers that the secrets name; None is the one without a name."""
    auth = st.secrets["auth"]
    named = [name for name, section in auth.items() if isinstance(section, Mapping)]
    return [*([None] if "client_id" in auth else []), *named]
