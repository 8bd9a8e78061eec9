"""The photos of a session: previews, checks, and what stands for their files.

The files themselves are kept for all sessions together (`UploadStore`), and not by Streamlit.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from app.errors import BadImage, Busy
from app.images.thumbnails import thumbnail
from app.images.upload_store import StoredPicture
from app.search.vector_cache import VectorCache
from app.ui.engine_texts import engine_text
from app.ui.formatting import escape_markdown
from app.ui.search_form.session_state import begin_with, current, refer_to
from app.ui.shared import services, uninterrupted
from app.ui.translation import N_, _

MAX_PICTURES = 10
"""Pictures of one object in one search."""

MAX_PHOTOS = 8
"""Searches by photos whose photos a session keeps, so that Back returns to them."""

PREVIEW_SIDE = 480
"""Longer side of a preview, in pixels."""

PREVIEWS = "search_previews"
"""Session key of the previews, or error messages, by SHA-256 of the file."""

PHOTOS = "search_photos"
"""Session key of the photos of each search, by the id that stands for them in the URL."""

UPLOADS = "search_uploads"
"""Session key of the number of uploads."""

CAMERA = "search_camera"
"""Session key of the camera widget."""

VECTORS = "search_vectors"
"""Session key of the cached vectors of query pictures."""

NOT_KEPT = N_("The photo of this address is not kept any more. Add it again.")


@dataclass(frozen=True, slots=True)
class PictureFile:
    """An uploaded or downloaded file that may or may not be a picture."""

    name: str
    data: StoredPicture


@dataclass(frozen=True, slots=True)
class PreviewedPhoto:
    """A picture to search with, by its file or by what stands for that, with a JPEG preview."""

    name: str
    data: bytes
    preview: bytes


def vectors() -> VectorCache:
    """The vectors of the session's query pictures."""
    cache: VectorCache = st.session_state.setdefault(VECTORS, VectorCache())
    return cache


def photos_of(photo: str) -> tuple[PictureFile, ...]:
    """The files of a search by photos; none if the session does not keep them (any more)."""
    kept: dict[str, tuple[PictureFile, ...]] = st.session_state.get(PHOTOS, {})
    return kept.get(photo, ())


def forget_unknown_photo() -> str | None:
    """Take a photo that is not kept out of what is asked; returns the message about it."""
    photo = current().photo
    if not photo or photos_of(photo):
        return None
    refer_to()
    return _(NOT_KEPT)


def upload_key() -> str:
    """The key of the upload widget: a new one after each upload, so that it is empty again."""
    uploads = st.session_state.get(UPLOADS, 0)
    return f"search_upload_{uploads}" if uploads else "search_upload"


@uninterrupted
def take_uploads() -> None:
    """Search with the files of the upload widget, which then forgets them; a callback."""
    key, uploads = upload_key(), st.session_state.get(UPLOADS, 0)
    files = st.session_state.get(key)
    if files:
        _search_with(files)
        _release(files)
        st.session_state[UPLOADS] = uploads + 1
        st.session_state.pop(key, None)


@uninterrupted
def take_shot() -> None:
    """Search with the picture of the camera; a callback."""
    shot = st.session_state[CAMERA]
    if shot is not None:
        _search_with([shot])


def _search_with(files: Sequence[Any]) -> None:
    """One file more than allowed is stored, which shows that there were too many."""
    uploads = services().uploads
    stored = tuple(
        PictureFile(file.name, uploads.put(file.getvalue())) for file in files[: MAX_PICTURES + 1]
    )
    if not stored:
        return
    photo = secrets.token_hex(4)
    kept = {**st.session_state.get(PHOTOS, {}), photo: stored}
    st.session_state[PHOTOS] = dict(list(kept.items())[-MAX_PHOTOS:])
    begin_with(photo=photo)


def _release(files: Sequence[Any]) -> None:
    """Let Streamlit give up the memory of uploaded files, which it keeps as long as the session."""
    context = get_script_run_ctx()
    manager: Any = None if context is None else context.uploaded_file_mgr
    if context is not None:
        for file in files:
            manager.remove_file(context.session_id, file.file_id)


def preview(files: Sequence[PictureFile]) -> tuple[PreviewedPhoto, ...]:
    """Decode the files; the page shows an error for each that is no picture, and stops at one that
    waited too long for others to be decoded."""
    if len(files) > MAX_PICTURES:
        text = _("A search takes {count} pictures of one thing; the first {count} are used.")
        st.warning(text.format(count=MAX_PICTURES))
    photos = []
    for file in files[:MAX_PICTURES]:
        try:
            jpeg = _cached_preview(file.data)
        except Busy as exc:
            st.warning(escape_markdown(f"{file.name}: {engine_text(str(exc))}"))
            st.button(_("Try again"), type="primary", icon=":material/refresh:", key="open_again")
            break
        if isinstance(jpeg, str):
            st.error(escape_markdown(f"{file.name}: {engine_text(jpeg)}"))
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
