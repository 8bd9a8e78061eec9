"""`app.images.decoding`: every picture becomes upright RGB of the size asked for or a thumbnail."""

from __future__ import annotations

import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from app.errors import BadImage
from app.images.decoding import ImageLimits, decode
from app.images.thumbnails import open_thumbnail, thumbnail
from support.picture_files import KINDS, chunk, noise, photo, saved

ORIENTATION = 0x0112


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference of two pictures of the same size, 0 to 255."""
    assert one.size == other.size
    return float(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).mean())


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
