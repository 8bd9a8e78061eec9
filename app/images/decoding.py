"""Pictures: bytes become an upright RGB picture, and a picture becomes a thumbnail.

No other module opens a picture. Only formats that shops and phones use are tried. Left out on
purpose: EPS, PDF and SVG (programs and documents), Photoshop files and icons (not photos of a
product), JPEG 2000 and JPEG XL (hardly ever sent, and a large surface for an attack).
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import pillow_heif
from PIL import Image

from app.config import Settings
from app.errors import BadImage
from app.images.decode_errors import reason
from app.images.orientation import upright
from app.images.pillow_warnings import no_warnings

DECODING = "1"
"""Raise it when the same bytes give other pixels: vectors made of them would be others too."""


# AVIF before HEIF: both claim the brand mif1, and Pillow asks the next when one declines.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "HEIF", "TIFF", "BMP")


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What is still decoded; 64 megapixels take half a GiB to do so, as WebP a whole one.

    `max_frames` holds where the header tells the number (WebP, AVIF, PNG, HEIF). To count the
    frames of a GIF or TIFF its whole file has to be read, which can take longer than decoding
    the first frame, and no other frame is ever decoded.
    """

    max_bytes: int = 30_000_000
    max_pixels: int = 64_000_000
    max_frames: int = 10_000

    @classmethod
    def from_settings(cls, settings: Settings) -> ImageLimits:
        """The limits an operator has chosen."""
        return cls(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels)


DEFAULT_LIMITS = ImageLimits()


def decode(
    data: bytes, limits: ImageLimits = DEFAULT_LIMITS, *, at_least: int | None = None
) -> Image.Image:
    """The first frame as an upright picture of mode RGB, transparency laid on white.

    With `at_least` the picture comes back smaller by a whole factor, both sides still at least
    that many pixels (or its own size); a JPEG is then decoded much faster. The same bytes and the
    same `at_least` give the same pixels. Colour profiles are not applied.

    A file that is cut off is refused, even if only its last bytes are missing: what Pillow would
    return is grey where the rest should be, and a half-grey photo in a catalogue finds the wrong
    products and is noticed by nobody. May be called from several threads at once.

    Raises:
        BadImage: with the reason, and what to do, for anything that is not such a picture.
    """
    return decode_with_size(data, limits, at_least=at_least)[0]


def decode_with_size(
    data: bytes, limits: ImageLimits = DEFAULT_LIMITS, *, at_least: int | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """Like `decode`, with the width and height in pixels the upright picture has in its file."""
    check_bytes(data, limits)
    try:
        with no_warnings(), Image.open(BytesIO(data), formats=_FORMATS) as picture:
            _check_header(picture, limits)
            width, height = picture.size
            if at_least is not None and picture.format in ("JPEG", "MPO"):
                picture.draft("RGB", (max(at_least, 1), max(at_least, 1)))
            picture.load()
            found, swapped = upright(picture, at_least)
            return found, (height, width) if swapped else (width, height)
    except BadImage:
        raise
    except Exception as exc:
        # Pillow answers bad files with nearly every kind of exception there is.
        raise BadImage(reason(data, exc, limits.max_pixels)) from exc


def check_bytes(data: bytes, limits: ImageLimits) -> None:
    """Raise BadImage if there are no bytes, or too many."""
    if not data:
        raise BadImage("The file is empty; export or upload the picture again.")
    if len(data) > limits.max_bytes:
        raise BadImage(
            f"The file has {len(data) / 1e6:.1f} MB and at most {limits.max_bytes / 1e6:g} MB are "
            "allowed; save the picture smaller, or as JPEG, and try again."
        )


def _check_header(picture: Image.Image, limits: ImageLimits) -> None:
    width, height = picture.size
    if width * height > limits.max_pixels:
        raise BadImage(
            f"The picture has {width} x {height} pixels ({width * height / 1e6:.0f} megapixels) "
            f"and at most {limits.max_pixels / 1e6:g} megapixels are allowed; make it smaller."
        )
    frames = 1 if picture.format in ("GIF", "TIFF") else getattr(picture, "n_frames", 1)
    if frames > limits.max_frames:
        raise BadImage(
            f"The animation has {frames} frames and at most {limits.max_frames} are allowed; "
            "send one picture of it."
        )


# Adds a format to Pillow's list and changes none that is there.
pillow_heif.register_heif_opener()
