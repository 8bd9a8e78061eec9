"""Converts a loaded picture to upright 8-bit RGB, with transparency on white.

`ImageOps.exif_transpose` is not used: it does not tell whether it swapped the sides, and it needs
the picture with its EXIF data, so before it is reduced. JPEGs decode as fast with it; a PNG on its
side that is shrunk takes 10 to 25 % longer.
"""

from __future__ import annotations

from math import isfinite

from PIL import ExifTags, Image

from app.errors import BadImage

_TRANSPOSES = {
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
    """A loaded picture of any mode as upright RGB, and whether width and height were swapped.

    With `at_least` it is reduced by the largest integer factor that leaves both sides at least
    that many pixels. Raises BadImage for Lab colours and infinite values.
    """
    transpose = _transpose(picture)
    rgb = _reduce(_on_white(_eight_bits(picture)), at_least)
    if transpose is not None:
        rgb = rgb.transpose(transpose)
    rgb.info = {}  # the file's comments, location and profile are not kept
    return rgb, transpose in _SIDEWAYS


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Scale grey of more than 8 bits to 0..255; Pillow would clip it at 255."""
    if not picture.mode.startswith(("I", "F")):
        return picture
    deep = picture.convert("I") if picture.mode.startswith("I;16") else picture
    low, high = _black_and_white(deep)
    scale = 255 / (high - low)
    grey = deep.point(lambda value: value * scale + (0.5 - low * scale)).convert("L")
    grey.info = {}  # the transparent value in it was not scaled
    return grey


def _black_and_white(picture: Image.Image) -> tuple[float, float]:
    """The values of black and white in grey of more than 8 bits; files do not contain them.

    The narrowest common range that holds all values, else the range of the values: many programs
    store 8-bit values in 16 bits without scaling, and read as 16 bits such a picture is black.
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
        return _without_metadata(picture) if picture.mode == "RGB" else picture.convert("RGB")
    layer = picture if picture.mode == "RGBA" else picture.convert("RGBA")
    canvas = Image.new("RGB", layer.size, "white")
    canvas.paste(layer, mask=layer)
    return canvas


def _without_metadata(picture: Image.Image) -> Image.Image:
    """A new picture that shares the pixels of this one.

    Copying the pixels would take up to 0.5 ms per picture of an ingest. `_new` is private to
    Pillow; the versions in pyproject.toml have it.
    """
    return picture._new(picture.im)


def _reduce(picture: Image.Image, at_least: int | None) -> Image.Image:
    """Shrink formats without draft decoding, so that a queued picture takes little memory."""
    factor = min(picture.size) // at_least if at_least else 1
    return picture.reduce(factor) if factor > 1 else picture


def _transpose(picture: Image.Image) -> Image.Transpose | None:
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return None  # a photo with damaged EXIF data is still usable
    return _TRANSPOSES.get(orientation) if isinstance(orientation, int) else None
