"""Explains to users why a file could not be decoded, and what to do."""

from __future__ import annotations

from PIL import Image

from app.errors import BadImage

# Signatures that name the type of a refused file; those in _UNREADABLE are never opened.
_READABLE = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"RIFF": "WebP",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
_UNREADABLE = {
    b"%PDF": "a PDF document",
    b"%!PS": "a PostScript drawing",
    b"\xc5\xd0\xd3\xc6": "a PostScript drawing",
    b"8BPS": "a Photoshop file",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 file",
    b"\xff\x4f\xff\x51": "a JPEG 2000 file",
    b"\0\0\0\x0cJXL ": "a JPEG XL file",
    b"\xff\x0a": "a JPEG XL file",
    b"\0\0\1\0": "an icon",
    b"PK\3\4": "a ZIP archive or an office document",
    b"\x1f\x8b": "a compressed archive",
}


def reason(data: bytes, exc: Exception, max_pixels: int) -> str:
    """An error text for users, for the error that decoding `data` raised."""
    if isinstance(exc, Image.DecompressionBombError):
        allowed = f"{max_pixels / 1e6:g} megapixels"
        return f"The picture has far more pixels than the {allowed} allowed; make it smaller."
    if isinstance(exc, MemoryError) or "memory" in str(exc):
        return "The picture needs too much memory to open; make it smaller and try again."
    for start, what in _UNREADABLE.items():
        if data.startswith(start):
            return f"This is {what}, which cannot be read; save it as JPEG, PNG or WebP."
    return _reason_of_text(data) or _reason_of_damage(data, exc)


def _reason_of_text(data: bytes) -> str | None:
    head = data[:1000].lower()
    if b"<svg" in head:
        return "This is an SVG drawing, which cannot be read; save it as JPEG, PNG or WebP."
    if b"<!doctype html" in head or b"<html" in head:
        return "This is a web page, not a picture; save the picture itself and try again."
    return None


def _reason_of_damage(data: bytes, exc: Exception) -> str:
    what = next((name for start, name in _READABLE.items() if data.startswith(start)), None)
    if data[4:8] == b"ftyp":
        what = "HEIC, AVIF or video"
    if what is None:
        return str(BadImage())
    shorter = what == "WebP" and int.from_bytes(data[4:8], "little") + 8 > len(data)
    if shorter or "file is truncated" in str(exc) or "Truncated File" in str(exc):
        return f"The {what} file is cut off, its end is missing; copy or upload it again."
    return f"The {what} file is damaged or of a rare kind; save it again as JPEG, PNG or WebP."
