"""Ways to give a picture to search with: a file, a web address, the camera, or a product's sku."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from app.errors import BadImage
from app.types import Region
from app.ui.components.product_cards import name_of
from app.ui.formatting import image
from app.ui.search_form.session_state import key
from app.ui.search_form.state import InputMethod
from app.ui.search_form.uploads import ACROSS, DOWN, UploadedFile, UploadedPhoto, keep, opened
from app.ui.shared import plain, sentences, services

WHOLE = (0, 100)


@dataclass(frozen=True, slots=True)
class UploadedPictures:
    """The pictures to ask with, and the part of the first that counts; `wrong` if what was given
    is of no use, and the page has said so."""

    photos: tuple[UploadedPhoto, ...] = ()
    region: Region | None = None
    wrong: bool = False


def given(by: InputMethod) -> UploadedPictures:
    """Draw the way that was chosen; gives what it was given."""
    ways = {"photo": _upload, "link": _link, "camera": _camera, "product": _product}
    return ways[by]()


def _upload() -> UploadedPictures:
    st.file_uploader(
        "Drop a photo here, or several of one product", key="search_upload",
        accept_multiple_files=True,
        help="JPEG, PNG, WebP, HEIC and others. Several photos of one thing count together.",
        on_change=keep, args=("search_files", "search_upload"),
    )  # fmt: skip
    files: tuple[UploadedFile, ...] = st.session_state.get("search_files", ())
    asked = _shown(files)
    if files and not st.session_state["search_upload"]:
        st.button("Remove photo", on_click=keep, args=("search_files", "search_upload"))
    return asked


def _camera() -> UploadedPictures:
    """Drawn only when it is chosen, since it asks for permission at once."""
    st.camera_input(
        "Take a photo", key="search_camera", on_change=keep, args=("search_shot", "search_camera")
    )
    return _shown(st.session_state.get("search_shot", ()))


def _link() -> UploadedPictures:
    """A picture by its address, fetched once; what went wrong is tried again only when asked."""
    url = st.text_input(
        "Address of a picture", key="search_link", placeholder="https://…", max_chars=2000
    ).strip()
    if not url:
        return UploadedPictures()
    seen: tuple[str, bytes | str] | None = st.session_state.get("search_fetched")
    if seen is None or seen[0] != url:
        with st.spinner("Fetching the picture …"):
            seen = st.session_state["search_fetched"] = (url, _fetched(url))
    if isinstance(seen[1], bytes):
        return _shown((UploadedFile(url, seen[1]),))
    st.error(plain(seen[1]))
    st.button("Try again", on_click=st.session_state.pop, args=("search_fetched",))
    return UploadedPictures(wrong=True)


def _fetched(url: str) -> bytes | str:
    try:
        return services().web.read(url)
    except BadImage as exc:
        return str(exc)


def _product() -> UploadedPictures:
    sku = st.text_input("Sku of a product", key=key("sku"), placeholder="for example: DEMO-0007")
    if not sku.strip():
        return UploadedPictures()
    with sentences("a product"):
        found = services().catalog.product(sku.strip())
        name = name_of(found.product)
        if found.pictures:
            _picture(found.pictures[0].thumbnail, name, None)
        st.caption(plain(f"Like {name}"))
        return UploadedPictures()
    return UploadedPictures(wrong=True)


def _shown(files: tuple[UploadedFile, ...]) -> UploadedPictures:
    """The pictures as they are asked with, the first with the part of it that counts."""
    photos = opened(files)
    if not photos:
        return UploadedPictures(wrong=bool(files))
    place = st.container()
    region = _region()
    with place:
        _picture(photos[0].preview, f"Your photo {photos[0].name}", region)
        if photos[1:]:
            small = "".join(
                image(photo.preview, f"Your photo {photo.name}") for photo in photos[1:]
            )
            st.html(f"<div class=others>{small}</div>")
    return UploadedPictures(photos, region)


def _region() -> Region | None:
    with st.expander("Search a part of the photo", key="search_part"):
        across = st.slider("From left to right", 0, 100, WHOLE, format="%d%%", key=ACROSS)
        down = st.slider("From top to bottom", 0, 100, WHOLE, format="%d%%", key=DOWN)
    if (across, down) == (WHOLE, WHOLE):
        return None
    return across[0] / 100, down[0] / 100, across[1] / 100, down[1] / 100


def _picture(jpeg: bytes, alt: str, region: Region | None) -> None:
    frame = ""
    if region is not None:
        left, top, right, bottom = (f"{share:.0%}" for share in region)
        width, height = f"{region[2] - region[0]:.0%}", f"{region[3] - region[1]:.0%}"
        alt += f", from {left} to {right} across and from {top} to {bottom} down"
        frame = (
            f'<div class=frame style="left:{left};top:{top};width:{width};height:{height}"></div>'
        )
    st.html(f"<div class=asked>{image(jpeg, alt)}{frame}</div>")
