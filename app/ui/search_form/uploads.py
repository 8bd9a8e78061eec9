"""The pictures that one person asks with: kept in the session, never longer, and shown small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import streamlit as st

from app.errors import BadImage
from app.images.thumbnails import thumbnail
from app.ui.shared import plain, services

MOST = 10
"""Pictures of one thing that a search takes."""

SHOWN_SIDE = 320
OPENED = "search_opened"
ACROSS, DOWN = "search_across", "search_down"
"""Keys of the widgets that say which part of the first picture counts."""


@dataclass(frozen=True, slots=True)
class UploadedPhoto:
    """A file somebody gave and a JPEG of it to show."""

    name: str
    data: bytes
    preview: bytes


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file as it came, of which nobody knows whether it is a picture."""

    name: str
    data: bytes


def keep(source: str, widget: str) -> None:
    """Keep what a widget was given, which forgets its files when it is not drawn.

    One more than a search takes shows that there were too many. With other pictures the region is
    given up, which was one of the first of them.
    """
    files: Any = st.session_state[widget]
    files = files if isinstance(files, list) else [files] * (files is not None)
    st.session_state[source] = tuple(
        UploadedFile(file.name, file.getvalue()) for file in files[: MOST + 1]
    )
    for edge in (ACROSS, DOWN):
        st.session_state.pop(edge, None)


def opened(given: Sequence[UploadedFile]) -> tuple[UploadedPhoto, ...]:
    """Those that are pictures; of the others the page says why they are not."""
    if len(given) > MOST:
        st.warning(f"A search takes {MOST} pictures of one thing; the first {MOST} are looked at.")
    photos = []
    for file in given[:MOST]:
        seen = _preview(file.data)
        if isinstance(seen, str):
            st.error(plain(f"{file.name}: {seen}"))
        else:
            photos.append(UploadedPhoto(file.name, file.data, seen))
    return tuple(photos)


def _preview(data: bytes) -> bytes | str:
    """A JPEG to show, or the sentence that says why there is none; made once a session."""
    seen: dict[bytes, bytes | str] = st.session_state.setdefault(OPENED, {})
    name = sha256(data).digest()
    if name not in seen:
        seen[name] = _made(services().sandbox.decode, data)
        for oldest in list(seen)[: -2 * MOST]:
            del seen[oldest]
    return seen[name]


def _made(decode: Callable[..., Any], data: bytes) -> bytes | str:
    try:
        return thumbnail(decode(data, at_least=SHOWN_SIDE), side=SHOWN_SIDE)
    except BadImage as exc:
        return str(exc)
