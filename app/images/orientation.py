"""Upright: a loaded picture becomes RGB in eight bits, on white, the way up it was taken."""

from __future__ import annotations

from math import isfinite

from PIL import ExifTags, Image

from app.errors import BadImage

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_SIDEWAYS = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)


def upright(picture: Image.Image, at_least: int | None) -> tuple[Image.Image, bool]:
    """A loaded picture of any mode as RGB, and whether its sides were swapped; smaller by a whole
    factor where both sides stay at least that many pixels.

    Raises BadImage for Lab colours and infinite values.
    """
    turn = _turn(picture)
    small = _reduced(_on_white(_eight_bits(picture)), at_least)
    return _turned(small, turn), turn in _SIDEWAYS


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Scale deeper grey to 0..255, where Pillow would cut it off at 255."""
    if not picture.mode.startswith(("I", "F")):
        return picture
    deep = picture.convert("I") if picture.mode.startswith("I;16") else picture
    low, high = _black_and_white(deep)
    scale = 255 / (high - low)
    grey = deep.point(lambda value: value * scale + (0.5 - low * scale)).convert("L")
    grey.info = {}  # the value that means transparent was not scaled with it
    return grey


def _black_and_white(picture: Image.Image) -> tuple[float, float]:
    """The values of black and white in deep grey, which its file does not tell.

    The narrowest usual range that holds all values, else the values' own: many programs store
    8 bits in 16 without scaling them, and read as 16 bits such a picture is black all over.
    """
    low, high = (float(str(value)) for value in picture.getextrema())
    if not (isfinite(low) and isfinite(high)):
        raise BadImage("The picture has infinite pixel values; save it as JPEG, PNG or WebP.")
    for white in (1, 255, 65535) if picture.mode == "F" else (255, 65535):
        if low >= 0 and high <= white:
            return 0, white
    return low, max(high, low + 1)


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode == "LAB":
        raise BadImage("The picture has Lab colours; save it with RGB colours and try again.")
    if not picture.has_transparency_data:
        return _pixels_of(picture) if picture.mode == "RGB" else picture.convert("RGB")
    layer = picture if picture.mode == "RGBA" else picture.convert("RGBA")
    canvas = Image.new("RGB", layer.size, "white")
    canvas.paste(layer, mask=layer)
    return canvas


def _pixels_of(picture: Image.Image) -> Image.Image:
    """A picture that shares these pixels. A copy would have the same in new memory, which the
    system clears first: up to half a millisecond a picture of an ingest. `_turned` drops the rest
    of what the file said. (`_new` is Pillow's own; the versions we allow have it.)"""
    return picture._new(picture.im)


def _reduced(picture: Image.Image, at_least: int | None) -> Image.Image:
    """What draft decoding did not shrink, so that a waiting picture takes little memory."""
    factor = min(picture.size) // at_least if at_least else 1
    return picture.reduce(factor) if factor > 1 else picture


def _turn(picture: Image.Image) -> Image.Transpose | None:
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return None  # damaged notes of a camera do not spoil its photo
    return _UPRIGHT.get(orientation) if isinstance(orientation, int) else None


def _turned(picture: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    if turn is not None:
        picture = picture.transpose(turn)
    picture.info = {}  # comments, places and profiles of the file do not travel with the pixels
    return picture
