"""Searches by photo as links: the photo's vectors and a preview are stored for a limited time."""

from __future__ import annotations

from urllib.parse import urlencode

import streamlit as st

from app.errors import Busy, LookalikeError, UnknownPhoto
from app.search.stored_photos import PREVIEW_SIDE
from app.search.vector_cache import VectorCache
from app.types import Region
from app.ui.engine_texts import engine_text
from app.ui.formatting import escape_markdown, format_time
from app.ui.search_form import share_owner
from app.ui.search_form.session_state import current, update
from app.ui.search_form.state import SearchFormState
from app.ui.search_form.uploads import PreviewedPhoto
from app.ui.search_form.url_state import to_url
from app.ui.shared import services, uninterrupted
from app.ui.translation import N_, _

SHARED = "search_shared"
"""Session key of what this session shared: the id of the search's photo by that of the link."""

FOCUS = "search_share_focus"
"""Session key of whether the next run moves the keyboard focus to the link, and how often one did.
"""

FOCUS_SCRIPT = """<script>{ // COUNT
  const link = document.querySelector(".st-key-shared_link");
  link.tabIndex = -1;
  link.focus();
}</script>"""
"""The button that was pressed is gone. See `result_pages.SCRIPT` for the COUNT."""

FAILED = "search_share_failed"
"""Session key of the message why a search was not shared."""

ENDED = "search_share_ended"
"""Session key of the id of a link that has just been ended."""

NAME = N_("that was shared")

EXPIRED = N_(
    "The link to this search by photo has expired, or is incomplete. Ask for a new link, or add "
    "the photo yourself."
)
OTHER_MODEL = N_(
    "The catalogue was given another model after this link to a search by photo was made. Add the "
    "photo yourself."
)
TOO_MANY = N_("Too many searches are shared or running now. Try again later.")


def draw_button(photo: PreviewedPhoto) -> None:
    """Draw the button that makes a link of the search with a photo."""
    if services().settings.page_read_only:
        return
    st.button(
        _("Share"), key="share", type="tertiary", icon=":material/share:", on_click=_share,
        args=(photo.data,),
        help=_("Make a link to this search. Until it expires, everybody with the link sees the "
               "photo, reduced to {pixels} pixels. The file itself is not stored.").format(
                   pixels=PREVIEW_SIDE),
    )  # fmt: skip


def draw_link(form: SearchFormState) -> None:
    """Draw the link to a shared search after it was made, and when it expires."""
    if message := st.session_state.pop(FAILED, None):
        st.warning(escape_markdown(message))
    if not form.shared:
        return
    try:
        expires = format_time(services().photos.expires(form.shared))
    except LookalikeError:
        return  # it has just expired; the next run says so
    if form.shared in _shared() or share_owner.is_own(form.shared):
        with st.container(key="shared_link"):
            _draw_own(form, expires)
        _move_focus()
    else:
        text = _("A shared photo, which can be searched with until {time}.")
        st.caption(text.format(time=expires))


def _draw_own(form: SearchFormState, expires: str) -> None:
    """Draw a link that this browser made, and a button that ends it, unless the page is read-only
    by now."""
    text = _("Everybody with this link can repeat the search until {time}:")
    st.caption(text.format(time=expires))
    st.code(link(form), language=None, wrap_lines=True)
    if not services().settings.page_read_only:
        st.button(
            _("Stop sharing"), key="stop-sharing", type="tertiary", icon=":material/link_off:",
            on_click=_stop, args=(form.shared,),
            help=_("Delete what is stored for the link, which finds nothing from then on."),
        )  # fmt: skip
    if form.shared in _shared():
        share_owner.keep(form.shared)


def draw_ended() -> None:
    """Say once that a link was ended."""
    if ended := st.session_state.pop(ENDED, ""):
        st.caption(_("The link is ended: who opens it finds nothing."))
        share_owner.forget(ended)


def _move_focus() -> None:
    due, count = st.session_state.get(FOCUS, (False, 0))
    if due:
        st.session_state[FOCUS] = (False, count + 1)
        st.html(FOCUS_SCRIPT.replace("COUNT", str(count)), unsafe_allow_javascript=True)


def _shared() -> dict[str, str]:
    shared: dict[str, str] = st.session_state.get(SHARED, {})
    return shared


def link(form: SearchFormState) -> str:
    """The address of a search; as this browser sees the page."""
    address = (st.context.url or "").partition("?")[0]
    # Without the slash a page below a base URL redirects, behind a proxy perhaps to another scheme.
    return f"{address.rstrip('/')}/?{urlencode(to_url(form), doseq=True)}"


def opened(id_: str, vectors: VectorCache, region: Region | None) -> PreviewedPhoto | None:
    """The stored photo with this id, its vectors in `vectors`; None, with a message on the page,
    if it has expired or never was."""
    photos = services().photos
    try:
        preview = photos.preview(id_)
    except UnknownPhoto:
        st.error(_(EXPIRED))
        return None
    try:
        return PreviewedPhoto(_(NAME), photos.load(id_, vectors, region), preview)
    except UnknownPhoto:
        st.error(_(OTHER_MODEL))
        return None


@uninterrupted
def _share(data: bytes) -> None:
    """Store a photo and search with what is stored, so that the address is the link; a callback."""
    app = services()
    if current().shared:
        return  # this was done before the callback was interrupted
    try:
        photo = app.uploads.file(data)
        shared = app.photos.add(photo, app.settings.share_hours * 60).id
    except Busy:
        st.session_state[FAILED] = _(TOO_MANY)
    except LookalikeError as exc:
        st.session_state[FAILED] = engine_text(str(exc))
    else:
        form = current()
        st.session_state[SHARED] = {**_shared(), shared: form.photo}
        st.session_state[FOCUS] = (True, st.session_state.get(FOCUS, (False, 0))[1])
        update(photo="", shared=shared, page=form.page)


@uninterrupted
def _stop(shared: str) -> None:
    """Delete what is stored for a link, and search with the photo itself again; a callback."""
    try:
        services().photos.remove(shared)
    except LookalikeError as exc:
        st.session_state[FAILED] = engine_text(str(exc))
        return
    form = current()
    st.session_state[ENDED] = shared
    if form.shared == shared:  # else this was done before the callback was interrupted
        update(photo=_shared().get(shared, ""), shared="", page=form.page)
