"""Who is at the page: signed in where that is set up, or known by the name they gave."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from app.ui.shared import plain

NAME = "judge"
"""Where a session keeps the name that was given."""

LONGEST = 80


def known() -> str | None:
    """The name of whoever is at the page; None before they signed in or gave one."""
    if not _signing_in():
        name: str | None = st.session_state.get(NAME)
        return name
    if not st.user.is_logged_in:
        return None
    return next((str(st.user[key]) for key in ("email", "name", "sub") if st.user.get(key)), None)


def welcome() -> bool:
    """Whether whoever is at the page may change things: signed in, where that is set up."""
    return not _signing_in() or known() is not None


def judge() -> str | None:
    """The name that verdicts are recorded under; without one, None and a way to give it."""
    name = known()
    if name is None:
        offer = _sign_in if _signing_in() else _ask
        offer()
        return None
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(plain(f"Judging as {name}"), width="content")
        if _signing_in():
            st.button("Sign out", type="tertiary", on_click=st.logout)
        elif st.button("Change name", type="tertiary"):
            del st.session_state[NAME]
            st.rerun()
    return name


def _signing_in() -> bool:
    """Whether the secrets set up signing in: only then does Streamlit know of it at all."""
    return hasattr(st.user, "is_logged_in")


def _ask() -> None:
    with st.form("who"):
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
