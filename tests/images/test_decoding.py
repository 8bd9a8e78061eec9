"""`app.images.decoding`: every file becomes an upright RGB picture or is refused with a reason."""

from __future__ import annotations

import csv
import io
import json
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from app.config import Settings
from app.errors import BadImage
from app.images.decoding import ImageLimits, decode
from app.images.thumbnails import open_thumbnail, thumbnail
from support.paths import REPO as ROOT

ORIENTATION = 0x0112


def photo(width: int = 96, height: int = 64) -> Image.Image:
    """A smooth picture with four different corners, which lossy formats preserve."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=2).astype(np.uint8))


def noise(width: int, height: int) -> Image.Image:
    random = np.random.default_rng(7)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference of two pictures of the same size, 0 to 255."""
    assert one.size == other.size
    return float(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).mean())


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG file."""
    checksum = struct.pack(">I", zlib.crc32(name + body))
    return struct.pack(">I", len(body)) + name + body + checksum


def png(width: int, height: int, *, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG that declares a size and contains almost no data."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(64))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, body) for name, body in parts)


KINDS = ["JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF", "BMP", "GIF", "MPO"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_accepted_format_becomes_a_plain_rgb_picture(kind: str) -> None:
    picture = decode(saved(photo(), kind))
    assert type(picture) is Image.Image
    assert picture.mode == "RGB"
    assert difference(picture, photo()) < 12
    assert picture.info == {}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_with_an_exif_orientation_becomes_upright(kind: str, orientation: int) -> None:
    stored = ImageOps.exif_transpose(with_orientation(photo(), inverse(orientation)))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert difference(decode(saved(stored, kind, exif=exif)), photo()) < 12


def with_orientation(picture: Image.Image, orientation: int) -> Image.Image:
    picture.getexif()[ORIENTATION] = orientation
    return picture


def inverse(orientation: int) -> int:
    return {6: 8, 8: 6}.get(orientation, orientation)


def test_a_photo_with_damaged_exif_is_decoded() -> None:
    data = saved(photo(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\x12\x01" * 40)
    assert difference(decode(data), photo()) < 12


def test_transparency_is_composited_on_white() -> None:
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 128))
    clear.putpixel((1, 0), (0, 0, 0, 0))
    picture = decode(saved(clear, "PNG"))
    assert picture.getpixel((0, 0)) == (255, 127, 127)
    assert picture.getpixel((1, 0)) == (255, 255, 255)


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"])
def test_the_transparent_colour_of_a_palette_is_white(transparency: int | bytes) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    picture = decode(saved(palette, "PNG", transparency=transparency))
    assert picture.getpixel((0, 0)) == (255, 255, 255)
    assert picture.getpixel((1, 0)) == (40, 50, 60)


def test_the_transparent_colour_of_an_rgb_picture_is_white() -> None:
    opaque = Image.new("RGB", (2, 1), (1, 2, 3))
    opaque.putpixel((1, 0), (9, 9, 9))
    picture = decode(saved(opaque, "PNG", transparency=(1, 2, 3)))
    assert [picture.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (9, 9, 9)]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_keeps_its_colours(kind: str) -> None:
    # Pillow writes the Adobe marker and inverted values, as Photoshop does.
    assert difference(decode(saved(photo().convert("CMYK"), kind)), photo()) < 12


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_clipped(kind: str) -> None:
    deep = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    picture = decode(saved(Image.fromarray(deep), kind))
    assert np.asarray(picture)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_16_bit_grey_of_the_other_byte_order_is_scaled() -> None:
    deep = Image.frombytes("I;16B", (2, 1), b"\x80\x00\xff\xff")
    picture = decode(saved(deep, "TIFF"))
    assert np.asarray(picture)[0, :, 0].tolist() == [128, 255]


def test_8_bits_stored_in_16_are_not_black() -> None:
    deep = np.array([[0, 100, 255]], dtype=np.uint16)
    picture = decode(saved(Image.fromarray(deep), "PNG"))
    assert np.asarray(picture)[0, :, 1].tolist() == [0, 100, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
    ],
)
def test_floating_point_grey_fills_the_range(values: list[float], expected: list[int]) -> None:
    picture = decode(saved(Image.fromarray(np.array([values], dtype=np.float32)), "TIFF"))
    assert np.asarray(picture)[0, :, 0].tolist() == expected


def test_infinite_pixels_are_refused() -> None:
    data = saved(Image.fromarray(np.array([[0, np.inf]], dtype=np.float32)), "TIFF")
    with pytest.raises(BadImage, match="infinite"):
        decode(data)


def test_lab_colours_are_refused_with_advice() -> None:
    with pytest.raises(BadImage, match="save it with RGB"):
        decode(saved(Image.new("LAB", (4, 4)), "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_an_animation_is_decoded_as_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    assert difference(decode(data), frames[0]) < 3


def test_too_many_frames_are_refused() -> None:
    frames = [noise(16, 16).rotate(90 * turn) for turn in range(3)]
    data = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    with pytest.raises(BadImage, match="3 frames and at most 2"):
        decode(data, ImageLimits(max_frames=2))


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
        "import test_decoding as t\n"
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


# Threads and warnings


def warning_png() -> bytes:
    """A valid PNG for which Pillow warns: it declares an animation of zero frames."""
    data = saved(photo(16, 16), "PNG")
    end_of_header = 33
    return data[:end_of_header] + chunk(b"acTL", bytes(8)) + data[end_of_header:]


def test_decoding_suppresses_pillow_warnings_that_other_code_still_gets() -> None:
    data = warning_png()
    decode(data)
    with pytest.warns(UserWarning), Image.open(io.BytesIO(data)) as picture:
        picture.load()


def test_threads_decode_concurrently_without_warnings_or_mixed_results() -> None:
    colours = [(index, 255 - index, index // 2) for index in range(64)]
    files = [saved(Image.new("RGB", (50, 40), colour), "PNG") for colour in colours]
    warning = warning_png()

    def one(index: int) -> object:
        decode(warning)
        return decode(files[index]).getpixel((25, 20))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(one, range(64))) == colours


# Decoding at reduced size


def test_a_jpeg_decoded_at_reduced_size_resembles_the_full_one() -> None:
    data = saved(photo(1200, 900), "JPEG", quality=90)
    draft, whole = decode(data, at_least=224), decode(data)
    assert draft.size == (300, 225)
    assert difference(draft, whole.resize(draft.size, Image.Resampling.BOX)) < 2


@pytest.mark.parametrize("size", [(1200, 900), (449, 3000), (300, 225), (100, 50), (2000, 64)])
@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "HEIF"])
def test_no_side_falls_below_the_requested_size(kind: str, size: tuple[int, int]) -> None:
    picture = decode(saved(photo(*size), kind), at_least=224)
    for side, original in zip(picture.size, size, strict=True):
        assert side >= min(224, original)


def test_a_jpeg_with_an_exif_orientation_is_upright_at_reduced_size() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    assert decode(saved(photo(800, 400), "JPEG", exif=exif), at_least=100).size == (100, 200)


# Thumbnails


@pytest.mark.parametrize("size", [(5000, 1), (1, 5000), (1, 1), (2000, 1500), (320, 20), (7, 3)])
def test_a_thumbnail_of_any_shape_is_small_and_opens(size: tuple[int, int]) -> None:
    data = thumbnail(photo(*size))
    small = open_thumbnail(data)
    assert len(data) <= 20_000
    assert max(small.size) <= 320
    assert small.width <= size[0] and small.height <= size[1]


@pytest.mark.parametrize("max_bytes", [20_000, 5_000, 1_000, 700])
def test_a_thumbnail_of_noise_is_within_the_size_limit(max_bytes: int) -> None:
    assert len(thumbnail(noise(600, 600), max_bytes=max_bytes)) <= max_bytes


def test_a_thumbnail_resembles_the_picture() -> None:
    small = open_thumbnail(thumbnail(photo(900, 600)))
    assert small.size == (320, 213)
    assert difference(small, photo(320, 213)) < 4


def test_a_size_limit_that_no_thumbnail_meets_is_an_error() -> None:
    with pytest.raises(ValueError, match="100 bytes"):
        thumbnail(photo(), max_bytes=100)


def test_a_picture_of_another_mode_gets_a_thumbnail() -> None:
    assert open_thumbnail(thumbnail(photo().convert("L"))).size == (96, 64)


def test_a_damaged_thumbnail_is_refused() -> None:
    with pytest.raises(BadImage):
        open_thumbnail(thumbnail(photo())[:-50])


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


@pytest.mark.parametrize(
    "pattern", ["pillow__hopper_orientation_*.webp", "pillow__g4_*.tif", "pillow__avif__rot*.avif"]
)
def test_the_same_photo_in_each_exif_orientation_is_decoded_alike(
    test_data: Path, pattern: str
) -> None:
    pictures = [decode(path.read_bytes()) for path in sorted((test_data / "nasty").glob(pattern))]
    assert len(pictures) >= 4
    # The four AVIF files mark their orientation in the middle of the picture.
    assert all(difference(pictures[0], other) < 10 for other in pictures[1:])


@pytest.mark.parametrize("orientation", range(10))
def test_pixels_are_rotated_by_each_exif_orientation(test_data: Path, orientation: int) -> None:
    name = f"generated__exif_orientation_{orientation}.jpg"
    data = (test_data / "nasty" / name).read_bytes()
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert difference(decode(data), expected) == 0
