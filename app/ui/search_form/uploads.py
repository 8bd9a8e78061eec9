"""The uploaded pictures of a session: previews, checks, and what stands for their files.

The files themselves are kept for all sessions together (`UploadStore`), and not by Streamlit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from app.errors import BadImage, Busy
from app.images.thumbnails import thumbnail
from app.images.upload_store import StoredPicture
from app.ui.formatting import escape_markdown
from app.ui.shared import services

MAX_PICTURES = 10
"""Pictures of one object in one search."""

PREVIEW_SIDE = 320
"""Longer side of a preview, in pixels."""

PREVIEWS = "search_previews"
"""Session key of the previews, or error messages, by SHA-256 of the file."""

UPLOADS = "search_uploads"
"""Session key of the number of uploads."""

ACROSS, DOWN = "search_across", "search_down"
"""Session keys of the sliders for the region of the first picture."""


@dataclass(frozen=True, slots=True)
class PictureFile:
    """An uploaded or downloaded file that may or may not be a picture."""

    name: str
    data: StoredPicture


@dataclass(frozen=True, slots=True)
class PreviewedPhoto:
    """A file that was decoded as a picture, with a JPEG preview."""

    name: str
    data: StoredPicture
    preview: bytes


def upload_key() -> str:
    """The key of the upload widget: a new one after each upload, so that it is empty again."""
    uploads = st.session_state.get(UPLOADS, 0)
    return f"search_upload_{uploads}" if uploads else "search_upload"


def store_uploads(session_key: str) -> None:
    """Store the files of the upload widget, which then forgets them; a callback."""
    store_files(session_key, upload_key())
    _release(st.session_state.pop(upload_key()))
    st.session_state[UPLOADS] = st.session_state.get(UPLOADS, 0) + 1


def remove_files(session_key: str) -> None:
    """Forget the stored files; a callback."""
    st.session_state.pop(session_key, None)
    _reset_region()


def store_files(session_key: str, widget: str) -> None:
    """Store the files of a widget: it loses them when it is not drawn.

    One file more than allowed is stored, which shows that there were too many. The region belonged
    to the previous first picture, so it is reset.
    """
    files: Any = st.session_state[widget]
    files = files if isinstance(files, list) else [files] * (files is not None)
    uploads = services().uploads
    st.session_state[session_key] = tuple(
        PictureFile(file.name, uploads.put(file.getvalue())) for file in files[: MAX_PICTURES + 1]
    )
    _reset_region()


def _release(files: Sequence[Any]) -> None:
    """Let Streamlit give up the memory of uploaded files, which it keeps as long as the session."""
    context = get_script_run_ctx()
    manager: Any = None if context is None else context.uploaded_file_mgr
    if context is not None:
        for file in files:
            manager.remove_file(context.session_id, file.file_id)


def _reset_region() -> None:
    for slider in (ACROSS, DOWN):
        st.session_state.pop(slider, None)


def preview(files: Sequence[PictureFile]) -> tuple[PreviewedPhoto, ...]:
    """Decode the files; the page shows an error for each that is no picture, and stops at one that
    waited too long for others to be decoded."""
    if len(files) > MAX_PICTURES:
        st.warning(
            f"A search takes {MAX_PICTURES} pictures of one thing; the first {MAX_PICTURES} are "
            "looked at."
        )
    photos = []
    for file in files[:MAX_PICTURES]:
        try:
            jpeg = _cached_preview(file.data)
        except Busy as exc:
            st.warning(escape_markdown(f"{file.name}: {exc}"))
            st.button("Try again", type="primary", icon=":material/refresh:", key="open_again")
            break
        if isinstance(jpeg, str):
            st.error(escape_markdown(f"{file.name}: {jpeg}"))
        else:
            photos.append(PreviewedPhoto(file.name, file.data, jpeg))
    return tuple(photos)


def _cached_preview(picture: StoredPicture) -> bytes | str:
    """A JPEG preview, or the message why there is none; computed once in a session."""
    previews: dict[bytes, bytes | str] = st.session_state.setdefault(PREVIEWS, {})
    if picture not in previews:
        previews[picture] = _decode_preview(picture)
        for oldest in list(previews)[: -2 * MAX_PICTURES]:
            del previews[oldest]
    return previews[picture]


def _decode_preview(picture: StoredPicture) -> bytes | str:
    app = services()
    try:
        data = app.uploads.file(picture)
        return thumbnail(app.sandbox.decode(data, at_least=PREVIEW_SIDE), side=PREVIEW_SIDE)
    except BadImage as exc:
        return str(exc)
