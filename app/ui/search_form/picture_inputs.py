"""Inputs for the query picture: file upload, web address, camera, or the sku of a product."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from app.errors import BadImage
from app.images.upload_store import StoredPicture
from app.types import Region
from app.ui.components.product_cards import display_name
from app.ui.formatting import escape_markdown, img_tag
from app.ui.search_form.session_state import widget_key
from app.ui.search_form.state import InputMethod
from app.ui.search_form.uploads import (
    ACROSS,
    DOWN,
    PictureFile,
    PreviewedPhoto,
    preview,
    remove_files,
    store_files,
    store_uploads,
    upload_key,
)
from app.ui.shared import errors_as_text, services

FULL_RANGE = (0, 100)
"""Percent of a side that the region sliders have at first."""


@dataclass(frozen=True, slots=True)
class PictureInput:
    """The pictures of a search, and the region of the first one.

    `invalid`: something was given that cannot be searched with, and the page shows why.
    """

    photos: tuple[PreviewedPhoto, ...] = ()
    region: Region | None = None
    invalid: bool = False


def draw(method: InputMethod) -> PictureInput:
    """Draw the widgets of one input method; returns its pictures."""
    methods = {"photo": _upload, "link": _link, "camera": _camera, "product": _product}
    return methods[method]()


def _upload() -> PictureInput:
    st.file_uploader(
        "Drop a photo here, or several of one product", key=upload_key(),
        accept_multiple_files=True,
        help="JPEG, PNG, WebP, HEIC and others. Several photos of one thing count together.",
        on_change=store_uploads, args=("search_files",),
    )  # fmt: skip
    files: tuple[PictureFile, ...] = st.session_state.get("search_files", ())
    pictures = _draw_photos(files)
    if files:
        st.button("Remove photo", on_click=remove_files, args=("search_files",))
    return pictures


def _camera() -> PictureInput:
    """Drawn only when chosen, because the widget asks for permission at once."""
    st.camera_input(
        "Take a photo", key="search_camera",
        on_change=store_files, args=("search_shot", "search_camera"),
    )  # fmt: skip
    return _draw_photos(st.session_state.get("search_shot", ()))


def _link() -> PictureInput:
    """A picture by its URL, downloaded once; a failed download is repeated only on request."""
    url = st.text_input(
        "Address of a picture", key="search_link", placeholder="https://…", max_chars=2000
    ).strip()
    if not url:
        return PictureInput()
    cached: tuple[str, StoredPicture | str] | None = st.session_state.get("search_fetched")
    if cached is None or cached[0] != url:
        with st.spinner("Fetching the picture …"):
            cached = st.session_state["search_fetched"] = (url, _download(url))
    content = cached[1]
    if isinstance(content, StoredPicture):
        return _draw_photos((PictureFile(url, content),))
    st.error(escape_markdown(content))
    st.button("Try again", on_click=st.session_state.pop, args=("search_fetched",))
    return PictureInput(invalid=True)


def _download(url: str) -> StoredPicture | str:
    """The content of a URL, or the error message."""
    app = services()
    try:
        return app.uploads.put(app.web.read(url))
    except BadImage as exc:
        return str(exc)


def _product() -> PictureInput:
    sku = st.text_input(
        "Sku of a product", key=widget_key("sku"), placeholder="for example: DEMO-0007"
    )
    if not sku.strip():
        return PictureInput()
    with errors_as_text("a product"):
        details = services().catalog.product(sku.strip())
        name = display_name(details.product)
        if details.pictures:
            draw_picture(details.pictures[0].thumbnail, name, None)
        st.caption(escape_markdown(f"Like {name}"))
        return PictureInput()
    return PictureInput(invalid=True)


def _draw_photos(files: tuple[PictureFile, ...]) -> PictureInput:
    """Draw the previews, the first one with the sliders of its region."""
    photos = preview(files)
    if not photos:
        return PictureInput(invalid=bool(files))
    place = st.container()
    region = _region_sliders()
    with place:
        draw_picture(photos[0].preview, f"Your photo {photos[0].name}", region)
        if photos[1:]:
            small = "".join(
                img_tag(photo.preview, f"Your photo {photo.name}") for photo in photos[1:]
            )
            st.html(f"<div class=others>{small}</div>")
    return PictureInput(photos, region)


def _region_sliders() -> Region | None:
    """The chosen region; None for the whole picture."""
    with st.expander("Search a part of the photo", key="search_part"):
        across = st.slider("From left to right", 0, 100, FULL_RANGE, format="%d%%", key=ACROSS)
        down = st.slider("From top to bottom", 0, 100, FULL_RANGE, format="%d%%", key=DOWN)
    if (across, down) == (FULL_RANGE, FULL_RANGE):
        return None
    return across[0] / 100, down[0] / 100, across[1] / 100, down[1] / 100


def draw_picture(jpeg: bytes, alt: str, region: Region | None) -> None:
    """Draw a JPEG with a frame around its region; `alt` describes it to screen readers."""
    frame = ""
    if region is not None:
        left, top, right, bottom = (f"{edge:.0%}" for edge in region)
        width, height = f"{region[2] - region[0]:.0%}", f"{region[3] - region[1]:.0%}"
        alt += f", from {left} to {right} across and from {top} to {bottom} down"
        frame = (
            f'<div class=frame style="left:{left};top:{top};width:{width};height:{height}"></div>'
        )
    st.html(f"<div class=asked>{img_tag(jpeg, alt)}{frame}</div>")
