"""The picture that results are compared with: uploaded, photographed, by URL, or of a product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import streamlit as st

from app.errors import BadImage
from app.images.public_network import PrivateNetwork
from app.images.upload_store import StoredPicture
from app.types import Query, Region, RegionMatches, SearchResult
from app.ui.components import photo_box, pins, product_dialog
from app.ui.components.product_cards import display_name
from app.ui.components.product_dialog import AskedPicture
from app.ui.engine_texts import engine_text
from app.ui.formatting import escape_markdown, img_tag
from app.ui.search_form import recent, share, uploads
from app.ui.search_form.session_state import bound, current, is_current, put, refer_to, update
from app.ui.search_form.state import PercentBox, SearchFormState, to_region
from app.ui.search_form.uploads import PictureFile, PreviewedPhoto
from app.ui.shared import errors_as_text, services, uninterrupted
from app.ui.translation import N_, _

WHOLE: PercentBox = (0, 0, 100, 100)

PRIVATE = N_("Images on private networks can't be loaded. Download it and upload the file.")

OBJECTS = "search_objects"
"""Session key of the photo whose objects are known, and their boxes with labels."""

MATCHES = "search_object_matches"
"""Session key of the photo whose objects are known, what was asked, and their matches."""

DOWNLOADED = "search_downloaded"
"""Session key of the URL that was downloaded last, and its file or error message."""


@dataclass(frozen=True, slots=True)
class PictureInput:
    """The pictures of a search, and the region of the first one.

    `invalid`: something was given that cannot be searched with, and the page shows why. `asked` is
    what the details of a result are shown beside.
    """

    photos: tuple[PreviewedPhoto, ...] = ()
    region: Region | None = None
    invalid: bool = False
    asked: AskedPicture | None = None


def draw() -> PictureInput:
    """Draw the ways to give a picture, and the one that is given; returns it."""
    with st.container(key="give", horizontal=True, gap="small", vertical_alignment="center"):
        st.file_uploader(
            _("Photos of one product"), key=uploads.upload_key(), accept_multiple_files=True,
            on_change=uploads.take_uploads, label_visibility="collapsed",
        )  # fmt: skip
        _camera()
        recent.draw()
        pins.draw()
    share.draw_ended()
    form = current()
    if form.photo:
        return _draw_photos(uploads.photos_of(form.photo))
    if form.shared:
        return _draw_shared(form)
    if form.link:
        return _link(form)
    if form.sku:
        return _product(form.sku)
    if not form.words:
        with st.container(key="hint"):
            st.caption(_("You can also drop or paste a photo anywhere on this page."))
    return PictureInput()


def _camera() -> None:
    """Drawn when it is opened, because the widget asks for permission at once."""
    box = st.popover(
        _("Camera"), icon=":material/photo_camera:", key="camera_box", on_change="rerun"
    )
    if box.open:
        box.camera_input(_("Take a photo"), key=uploads.CAMERA, on_change=uploads.take_shot)


def _draw_shared(form: SearchFormState) -> PictureInput:
    """Draw a stored photo, of which there are vectors and a preview."""
    photo = share.opened(form.shared, uploads.vectors(), to_region(form.box))
    if photo is not None:
        return _draw_previews((photo,))
    st.button(_("Remove photo"), on_click=refer_to)
    return PictureInput(invalid=True)


def _link(form: SearchFormState) -> PictureInput:
    """A picture by its URL, downloaded once; a failed download is repeated only on request."""
    cached: tuple[str, StoredPicture | str] | None = st.session_state.get(DOWNLOADED)
    if cached is None or cached[0] != form.link:
        with st.spinner(_("Loading the picture …")):
            cached = st.session_state[DOWNLOADED] = (form.link, _download(form.link))
    content = cached[1]
    if isinstance(content, StoredPicture):
        return _draw_photos((PictureFile(form.link, content),))
    st.error(escape_markdown(engine_text(content)))
    with st.container(horizontal=True):
        st.button(_("Try again"), on_click=st.session_state.pop, args=(DOWNLOADED,))
        st.button(_("Remove image URL"), on_click=refer_to)
    return PictureInput(invalid=True)


def _download(url: str) -> StoredPicture | str:
    """The content of a URL, or the error message."""
    app = services()
    try:
        return app.uploads.put(app.web.read(url))
    except PrivateNetwork:
        return _(PRIVATE)
    except BadImage as exc:
        return str(exc)


def _product(sku: str) -> PictureInput:
    with errors_as_text("a product"):
        details = services().catalog.product(sku)
        name, asked = display_name(details.product), None
        with st.container(key="reference"):
            if details.pictures:
                jpeg = details.pictures[0].thumbnail
                draw_picture(jpeg, name, None)
                asked = AskedPicture(jpeg, jpeg, None, name, sku)
            st.caption(escape_markdown(_("Similar to {name} ({sku})").format(name=name, sku=sku)))
            with st.container(horizontal=True):
                st.button(
                    _("View product"), key="reference-details", type="tertiary",
                    on_click=product_dialog.request, args=(sku,),
                )  # fmt: skip
                st.button(_("Remove product"), type="tertiary", on_click=refer_to)
        return PictureInput(asked=asked)
    st.button(_("Remove product"), on_click=refer_to)
    return PictureInput(invalid=True)


def _draw_photos(files: tuple[PictureFile, ...]) -> PictureInput:
    """Draw the previews, the first one with its region and how to change that."""
    photos = uploads.preview(files)
    if not photos:
        st.button(_("Remove photo"), on_click=refer_to)
        return PictureInput(invalid=True)
    return _draw_previews(photos)


def _draw_previews(photos: tuple[PreviewedPhoto, ...]) -> PictureInput:
    form = current()
    with st.container(key="reference"):
        photo_box.draw(
            photos[0].preview, _photo_name(photos[0]), form.box,
            objects_of(form), choose_box,
        )  # fmt: skip
        if photos[1:]:
            small = "".join(img_tag(photo.preview, _photo_name(photo)) for photo in photos[1:])
            st.html(f"<div class=others>{small}</div>")
        with st.container(key="tools", horizontal=True):
            _region_sliders()
            if form.box is not None and not objects_of(form):  # else it is beside the objects
                st.button(
                    _("Whole photo"), key="whole-photo", type="tertiary",
                    on_click=choose_box, args=(None,),
                )  # fmt: skip
            st.button(_("Remove photo"), type="tertiary", on_click=refer_to)
            if form.photo and len(photos) == 1:
                share.draw_button(photos[0])
    share.draw_link(form)
    first, region = photos[0], to_region(form.box)
    # Of a shared photo there is no file.
    data = first.preview if form.shared else first.data
    return PictureInput(
        photos, region, asked=AskedPicture(first.preview, data, region, _("Your photo"))
    )


def _photo_name(photo: PreviewedPhoto) -> str:
    return _("Your photo {name}").format(name=photo.name)


def _region_sliders() -> None:
    """The part of the photo in numbers: for keyboards and screen readers."""
    left, top, right, bottom = current().box or WHOLE
    across = bound("box", name="across")
    down = bound("box", name="down")
    taken = {"on_change": _take_sliders, "args": (across["key"], down["key"])}
    with st.popover(_("Part of the photo"), type="tertiary", key="search_part"):
        st.slider(
            _("From left to right"), 0, 100, (left, right), format="%d%%",
            **(across | taken),
        )  # fmt: skip
        st.slider(
            _("From top to bottom"), 0, 100, (top, bottom), format="%d%%",
            **(down | taken),
        )  # fmt: skip


@uninterrupted
def _take_sliders(across: str, down: str) -> None:
    if not (is_current(across, "box", "across") and is_current(down, "box", "down")):
        return
    (left, right), (top, bottom) = st.session_state[across], st.session_state[down]
    box = left, top, right, bottom
    put(box=None if box == WHOLE else box)


def choose_box(box: PercentBox | None) -> None:
    """Search with a part of the photo; None is the whole. A callback."""
    update(box=None if box == WHOLE else box)


def remember_objects(form: SearchFormState, query: Query, result: SearchResult) -> bool:
    """Keep the objects that a search found in the photo, to be offered as boxes; returns whether
    the photo has to be drawn again with them."""
    regions = result.regions
    if form.box is not None or not regions:
        return False
    known, *_rest = st.session_state.get(MATCHES, (None,))
    # Further pages lack what was on earlier ones.
    if form.page == 1 or known != _reference(form):
        asked = _without_part(query) if form.page == 1 else None
        st.session_state[MATCHES] = (_reference(form), asked, regions)
    if objects_of(form):
        return False
    boxes = [percent_box(each.box) for each in distinct(regions)]
    text = _("Search with object {number} only")
    labels = [text.format(number=number) for number in range(1, len(boxes) + 1)]
    st.session_state[OBJECTS] = (_reference(form), list(zip(boxes, labels, strict=True)))
    return True


def matches_of_objects(
    form: SearchFormState, query: Query, result: SearchResult
) -> tuple[Sequence[RegionMatches], bool]:
    """The objects in the photo, also while a part of it is searched, and whether their matches are
    those of this query, with its words and filters."""
    reference, asked, regions = st.session_state.get(MATCHES, (None, None, ()))
    if reference != _reference(form) or (form.box is None and not result.regions):
        return (), False
    boxes = {box for box, _label in objects_of(form)}
    offered = [each for each in regions if percent_box(each.box) in boxes]
    return offered, asked == _without_part(query)


def distinct(regions: Sequence[RegionMatches]) -> list[RegionMatches]:
    """The objects with a best match of their own: one that a surer object has too is mostly another
    part of the same thing, and says nothing new."""
    found: dict[str, RegionMatches] = {}
    for each in regions:
        found.setdefault(each.matches[0].product.sku if each.matches else "", each)
    return list(found.values())


def _without_part(query: Query) -> Query:
    """A query apart from its photo, of which `_reference` tells, and the part of it."""
    return replace(query, picture=None, region=None)


def objects_of(form: SearchFormState) -> list[tuple[PercentBox, str]]:
    """The boxes of the objects in the photo, each with a label; empty while they are unknown."""
    reference, objects = st.session_state.get(OBJECTS, (None, []))
    return objects if reference == _reference(form) else []


def _reference(form: SearchFormState) -> tuple[str, ...]:
    return form.photo, form.shared, form.link


def percent_box(region: Region) -> PercentBox:
    """A region in whole percent."""
    left, top, right, bottom = (round(100 * edge) for edge in region)
    return left, top, right, bottom


def draw_picture(jpeg: bytes, alt: str, region: Region | None) -> None:
    """Draw a JPEG with a frame around its region; `alt` describes it to screen readers."""
    frame = ""
    if region is not None:
        left, top, right, bottom = (f"{edge:.0%}" for edge in region)
        width, height = f"{region[2] - region[0]:.0%}", f"{region[3] - region[1]:.0%}"
        text = _("{name}, from {left} to {right} across and from {top} to {bottom} down")
        alt = text.format(name=alt, left=left, right=right, top=top, bottom=bottom)
        frame = (
            f'<div class=frame style="left:{left};top:{top};width:{width};height:{height}"></div>'
        )
    st.html(f"<div class=asked>{img_tag(jpeg, alt)}{frame}</div>")
