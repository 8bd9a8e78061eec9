"""Who uses the page: the signed-in user, or without sign-in the name that the person typed."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from app.ui.formatting import escape_markdown
from app.ui.translation import _

NAME_KEY = "reviewer_name"
"""Session key of the typed name."""

MAX_NAME_LENGTH = 80


def current_name() -> str | None:
    """The name of the user; None before signing in or typing one."""
    if not _sign_in_configured():
        name: str | None = st.session_state.get(NAME_KEY)
        return name
    if not st.user.is_logged_in:
        return None
    return next((str(st.user[key]) for key in ("email", "name", "sub") if st.user.get(key)), None)


def may_change() -> bool:
    """Whether the user may change the catalogue: everyone, or the signed-in where configured."""
    return not _sign_in_configured() or current_name() is not None


def require_name() -> str | None:
    """The name that verdicts are recorded with; if unknown, draws a way to give it."""
    name = current_name()
    if name is None:
        draw = _draw_sign_in if _sign_in_configured() else _draw_name_form
        draw()
        return None
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(escape_markdown(_("Judging as {name}").format(name=name)), width="content")
        if _sign_in_configured():
            st.button(_("Sign out"), type="tertiary", on_click=st.logout)
        elif st.button(_("Change name"), type="tertiary"):
            del st.session_state[NAME_KEY]
            st.rerun()
    return name


def _sign_in_configured() -> bool:
    """Whether the secrets configure sign-in; only then `st.user` has this attribute."""
    return hasattr(st.user, "is_logged_in")


def _draw_name_form() -> None:
    with st.form("who"):
        name = st.text_input(
            _("Your name"),
            max_chars=MAX_NAME_LENGTH,
            help=_("It is stored with each verdict, so that others know whom to ask."),
        )
        if st.form_submit_button(_("Start judging"), type="primary"):
            if name.strip():
                st.session_state[NAME_KEY] = name.strip()
                st.rerun()
            st.error(_("Type your name first: it is stored with each verdict."))


def _draw_sign_in() -> None:
    st.info(_("Sign in to judge: your name is stored with each verdict."))
    for provider in _providers():
        label = _("Sign in")
        if provider:
            label = _("Sign in with {provider}").format(provider=escape_markdown(provider))
        if st.button(label, type="primary", key=f"sign in {provider}"):
            st.login(provider)


def _providers() -> list[str | None]:
    """The identity providers in the secrets; None is the one without a name."""
    auth = st.secrets["auth"]
    named = [name for name, section in auth.items() if isinstance(section, Mapping)]
    return [*([None] if "client_id" in auth else []), *named]
