"""Bombs, damaged and malformed files are decoded or refused within limits of memory and time."""

from __future__ import annotations

import csv
import json
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.config import Settings
from app.errors import BadImage
from app.images.decoding import ImageLimits, decode
from support.paths import REPO as ROOT
from support.picture_files import KINDS, chunk, noise, photo, saved


def png(width: int, height: int, *, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG that declares a size and contains almost no data."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(64))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, body) for name, body in parts)


# Limits


def webp_header(width: int, height: int) -> bytes:
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    image = saved(photo(16, 16), "WEBP")[12:]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + size + image
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    "data",
    [
        png(50_000, 50_000),
        png(10_000, 10_000),
        png(13_000, 13_000, bits=1, colour=0),
        png(2**31 - 1, 2**31 - 1),
        webp_header(16_000, 16_000),
        webp_header(10_000, 10_000),
    ],
    ids=["2500Mpx", "100Mpx", "1-bit", "largest", "webp-256Mpx", "webp-100Mpx"],
)
def test_a_bomb_is_refused_by_its_header(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(BadImage):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_bomb_takes_no_memory() -> None:
    script = (
        "import resource, sys; sys.path[:0] = ['.', 'tests', 'tests/images']\n"
        "import test_malformed_pictures as t\n"
        "data = [t.png(50_000, 50_000), t.png(10_000, 10_000), t.webp_header(10_000, 10_000)]\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "t.decode(t.saved(t.photo(), 'WEBP')); before = peak()\n"
        "for each in data:\n"
        "    try: t.decode(each)\n"
        "    except t.BadImage: pass\n"
        "print(peak() - before)"
    )
    assert int(run_python(script)) < 20_000  # KiB


def test_the_reason_for_a_large_picture_states_its_size() -> None:
    with pytest.raises(BadImage, match=r"10000 x 10000 pixels \(100 megapixels\).* 64 megapixels"):
        decode(png(10_000, 10_000))


def test_a_picture_with_pixels_up_to_the_limit_is_decoded() -> None:
    limits = ImageLimits(max_pixels=96 * 64)
    assert decode(saved(photo(), "PNG"), limits).size == (96, 64)
    with pytest.raises(BadImage):
        decode(saved(photo(97, 64), "PNG"), limits)


def test_more_bytes_than_allowed_are_refused() -> None:
    data = saved(photo(), "PNG")
    assert decode(data, ImageLimits(max_bytes=len(data))).mode == "RGB"
    with pytest.raises(BadImage, match="save the picture smaller"):
        decode(data, ImageLimits(max_bytes=len(data) - 1))


def test_the_limits_are_configurable() -> None:
    limits = ImageLimits.from_settings(Settings(max_image_bytes=5, max_image_pixels=7))
    assert (limits.max_bytes, limits.max_pixels) == (5, 7)


# Refused files


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"%PDF-1.7\n", "PDF"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"8BPS\0\1" + bytes(30), "Photoshop"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"PK\3\4" + bytes(40), "ZIP"),
        (b"just words", "not a picture"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "PNG file is damaged"),
    ],
)
def test_the_reason_for_a_file_that_is_not_a_picture_names_its_kind(
    data: bytes, reason: str
) -> None:
    with pytest.raises(BadImage, match=reason) as caught:
        decode(data)
    assert str(caught.value).endswith((".", "try again"))


@pytest.mark.parametrize("kind", ["EPS", "PDF", "PPM", "ICO", "TGA", "JPEG2000", "PCX"])
def test_formats_that_are_not_allowed_are_never_opened(kind: str) -> None:
    with pytest.raises(BadImage):
        decode(saved(photo(), kind))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_file_is_refused(kind: str, share: float) -> None:
    data = saved(noise(96, 64), kind)
    with pytest.raises(BadImage, match="cut off"):
        decode(data[: int(len(data) * share)])


def test_a_refusal_keeps_its_cause() -> None:
    with pytest.raises(BadImage) as caught:
        decode(saved(photo(), "JPEG")[:-100])
    assert isinstance(caught.value.__cause__, OSError)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=400))
def test_random_bytes_are_refused_without_other_errors(data: bytes) -> None:
    with pytest.raises(BadImage):
        decode(data)


SMALL = {kind: saved(photo(24, 16), kind) for kind in KINDS}


@settings(max_examples=400, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=8)), max_size=4
    ),
    keep=st.floats(0.3, 1),
)
@example(kind="TIFF", changes=[(0.0, b"II*\0\xff\xff\xff\xff")], keep=1.0)
def test_a_damaged_file_is_decoded_or_refused(
    kind: str, changes: list[tuple[float, bytes]], keep: float
) -> None:
    data = bytearray(SMALL[kind])
    for place, new in changes:
        at = int(place * len(data))
        data[at : at + len(new)] = new
    try:
        picture = decode(bytes(data[: int(len(data) * keep)]), ImageLimits(max_pixels=1_000_000))
    except BadImage as refused:
        assert len(str(refused)) > 20
    else:
        assert picture.mode == "RGB"


# Malformed files that an image service receives in practice

ALL_NASTY = """
import json, resource, sys, time
from pathlib import Path
from app.errors import BadImage
from app.images.decoding import decode

peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
for path in sorted(Path(sys.argv[1]).iterdir()):
    if path.name == "manifest.csv":
        continue
    data, started = path.read_bytes(), time.process_time()
    try:
        outcome = decode(data).size
    except BadImage as refused:
        outcome = str(refused)
    seconds = time.process_time() - started
    print(json.dumps([path.name, outcome, seconds, peak() - before]), flush=True)
"""


def run_python(script: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "error", "-c", script, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_every_malformed_file_is_decoded_or_refused_within_time_and_memory_limits(
    test_data: Path,
) -> None:
    folder = test_data / "nasty"
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        plain = {row["name"]: row["pillow_outcome"] for row in csv.DictReader(file)}
    rows = [json.loads(line) for line in run_python(ALL_NASTY, str(folder)).splitlines()]
    assert {name for name, *_ in rows} == set(plain)
    for name, outcome, seconds, mebibytes in rows:
        assert seconds < 10, name
        assert mebibytes < 1024, name
        left_out = name.endswith((".psd", ".ico", ".jp2", ".j2k")) or name == "pillow__lab.tif"
        if plain[name] == "ok" and not left_out:
            assert isinstance(outcome, list), f"{name}: {outcome}"
        assert isinstance(outcome, list) or len(outcome) > 20, name


def test_a_small_bmp_with_very_many_encoded_pixels_is_refused() -> None:
    """Its decoder is written in Python: 42 megapixels took 11 s."""
    size = struct.pack("<ii", 4_194_560, 10)
    head = struct.pack("<I", 40) + size + struct.pack("<HHIIiiII", 1, 8, 1, 0, 0, 0, 256, 0)
    file = b"BM" + struct.pack("<IHHI", 54 + 1024, 0, 0, 54 + 1024) + head + bytes(1024) + b"\0\1"
    with pytest.raises(BadImage, match="run-length encoding and 42 megapixels"):
        decode(file)
    with pytest.raises(BadImage, match="damaged"):
        decode(file.replace(size, struct.pack("<ii", 400, 300)))
