"""Decodes bytes into an upright RGB picture; no other module opens a picture.

Only formats that shops and phones use are accepted. Excluded on purpose: EPS, PDF and SVG (programs
and documents), Photoshop files and icons (not photos of a product), JPEG 2000 and JPEG XL (rarely
used, and a large attack surface).
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
"""Version of the decoding; increase it when the same bytes give other pixels, and so vectors."""

# AVIF before HEIF: both claim the brand mif1, and Pillow tries the next when one declines.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "HEIF", "TIFF", "BMP")


_MAX_RLE_PIXELS = 4_000_000
"""Largest BMP with run-length encoding: Pillow decodes it in Python, 4 megapixels a second, and a
file of 6 KB may claim 64 megapixels."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The largest picture that is decoded. 64 megapixels take 0.5 GiB of memory; as WebP 1 GiB.

    `max_frames` applies to formats whose header has the number (WebP, AVIF, PNG, HEIF). Counting
    the frames of a GIF or TIFF means reading the whole file, which can take longer than decoding
    its first frame, and no other frame is ever decoded.
    """

    max_bytes: int = 30_000_000
    max_pixels: int = 64_000_000
    max_frames: int = 10_000

    @classmethod
    def from_settings(cls, settings: Settings) -> ImageLimits:
        """The limits in the settings."""
        return cls(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels)


DEFAULT_LIMITS = ImageLimits()


def decode(
    data: bytes, limits: ImageLimits = DEFAULT_LIMITS, *, at_least: int | None = None
) -> Image.Image:
    """The first frame as an upright picture of mode RGB, with transparency on white.

    With `at_least` the picture is reduced by an integer factor that leaves both sides at least
    that many pixels; a JPEG is then decoded much faster. A smaller picture keeps its size. The
    same bytes and `at_least` give the same pixels. Colour profiles are not applied.

    A truncated file is refused, even if only its last bytes are missing: Pillow would fill the
    rest with grey, and such a photo in a catalogue silently finds the wrong products. Safe to call
    from several threads.

    Raises:
        BadImage: with the reason and what to do, if the bytes are not such a picture.
    """
    return decode_with_size(data, limits, at_least=at_least)[0]


def decode_with_size(
    data: bytes, limits: ImageLimits = DEFAULT_LIMITS, *, at_least: int | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """Like `decode`, with the upright picture's width and height in pixels before any reduction."""
    check_bytes(data, limits)
    try:
        with no_warnings(), Image.open(BytesIO(data), formats=_FORMATS) as picture:
            _check_header(picture, limits)
            width, height = picture.size
            if at_least is not None and picture.format in ("JPEG", "MPO"):
                picture.draft("RGB", (max(at_least, 1), max(at_least, 1)))
            picture.load()
            rgb, swapped = upright(picture, at_least)
            return rgb, (height, width) if swapped else (width, height)
    except BadImage:
        raise
    except Exception as exc:
        # Pillow raises nearly every kind of exception for bad files.
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
    encoded = picture.format == "BMP" and picture.info.get("compression") in (1, 2)  # RLE8, RLE4
    if encoded and width * height > _MAX_RLE_PIXELS:
        raise BadImage(
            f"The picture is a BMP with run-length encoding and {width * height / 1e6:.0f} "
            f"megapixels; at most {_MAX_RLE_PIXELS / 1e6:g} are allowed. Save it as PNG."
        )
    frames = 1 if picture.format in ("GIF", "TIFF") else getattr(picture, "n_frames", 1)
    if frames > limits.max_frames:
        raise BadImage(
            f"The animation has {frames} frames and at most {limits.max_frames} are allowed; "
            "send one picture of it."
        )


# Adds HEIF to Pillow's list of formats; the others are not affected.
pillow_heif.register_heif_opener()
