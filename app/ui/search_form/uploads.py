"""The uploaded pictures of a session: stored files, previews, checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import streamlit as st

from app.errors import BadImage, Busy
from app.images.thumbnails import thumbnail
from app.ui.formatting import escape_markdown
from app.ui.shared import services

MAX_PICTURES = 10
"""Pictures of one object in one search."""

PREVIEW_SIDE = 320
"""Longer side of a preview, in pixels."""

PREVIEWS = "search_previews"
"""Session key of the previews, or error messages, by SHA-256 of the file."""

ACROSS, DOWN = "search_across", "search_down"
"""Session keys of the sliders for the region of the first picture."""


@dataclass(frozen=True, slots=True)
class PictureFile:
    """An uploaded or downloaded file that may or may not be a picture."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class PreviewedPhoto:
    """A file that was decoded as a picture, with a JPEG preview."""

    name: str
    data: bytes
    preview: bytes


def store_files(session_key: str, widget: str) -> None:
    """Store the files of an upload widget in the session: the widget loses them when not drawn.

    One file more than allowed is stored, which shows that there were too many. The region belonged
    to the previous first picture, so it is reset.
    """
    files: Any = st.session_state[widget]
    files = files if isinstance(files, list) else [files] * (files is not None)
    st.session_state[session_key] = tuple(
        PictureFile(file.name, file.getvalue()) for file in files[: MAX_PICTURES + 1]
    )
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


def _cached_preview(data: bytes) -> bytes | str:
    """A JPEG preview, or the message why there is none; computed once in a session."""
    previews: dict[bytes, bytes | str] = st.session_state.setdefault(PREVIEWS, {})
    digest = sha256(data).digest()
    if digest not in previews:
        previews[digest] = _decode_preview(services().sandbox.decode, data)
        for oldest in list(previews)[: -2 * MAX_PICTURES]:
            del previews[oldest]
    return previews[digest]


def _decode_preview(decode: Callable[..., Any], data: bytes) -> bytes | str:
    try:
        return thumbnail(decode(data, at_least=PREVIEW_SIDE), side=PREVIEW_SIDE)
    except BadImage as exc:
        return str(exc)
