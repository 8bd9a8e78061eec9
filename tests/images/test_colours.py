"""The visible colours of pictures: what belongs to the product, and what it is called."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageDraw

from app.encoders import colour_words
from app.images.basic_colours import NAMES, SHADES, VERSION
from app.images.colours import colours_of_thumbnail, visible_colours
from app.images.thumbnails import thumbnail

RGB = tuple[int, int, int]


def product(colour: RGB, background: RGB, share: float = 0.6, size: int = 200) -> Image.Image:
    """A square in the middle of a background, with a little noise."""
    picture = Image.new("RGB", (size, size), background)
    edge = size * (1 - share) / 2
    ImageDraw.Draw(picture).rectangle((edge, edge, size - edge, size - edge), fill=colour)
    noise = np.random.default_rng(0).normal(0, 3, (size, size, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))


def share(picture: Image.Image, name: str) -> float:
    return float(visible_colours(picture)[NAMES.index(name)])


@pytest.mark.parametrize("name", NAMES)
def test_a_shade_is_called_by_its_name(name: str) -> None:
    assert (
        max(NAMES, key=lambda each: share(product(SHADES[name][0], (250, 250, 250), 0.9), each))
        == name
    )


@pytest.mark.parametrize("background", [(255, 255, 255), (60, 160, 70), (20, 20, 20)])
def test_a_background_of_another_colour_does_not_count(background: RGB) -> None:
    assert share(product((200, 25, 35), background), "red") > 0.8


def test_a_product_of_the_colour_of_its_background_counts_with_it() -> None:
    assert share(product((244, 244, 244), (247, 247, 247)), "white") > 0.8


def test_shares_are_of_all_that_a_product_shows() -> None:
    picture = product((200, 25, 35), (250, 250, 250), 0.8)
    picture.paste(Image.new("RGB", (200, 100), (40, 80, 180)).crop((0, 0, 160, 80)), (20, 20))
    assert 0.3 < share(picture, "red") < 0.7 and 0.3 < share(picture, "blue") < 0.7


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (1000, 2)])
def test_a_picture_of_any_size_has_shares_that_add_up(size: tuple[int, int]) -> None:
    shares = visible_colours(Image.new("RGB", size, (200, 25, 35)))
    assert shares.shape == (len(NAMES),) and shares.dtype == np.float32
    assert shares.sum() == pytest.approx(1, abs=1e-5) and shares[NAMES.index("red")] > 0.9


def test_the_colours_of_a_thumbnail_are_a_byte_each_and_the_same_each_time() -> None:
    small = thumbnail(product((200, 25, 35), (255, 255, 255), size=700))
    colours = colours_of_thumbnail(small)
    assert colours == colours_of_thumbnail(small) and colours.version == VERSION
    assert len(colours.shares) == len(NAMES) and NAMES[colours.main] == "red"
    assert colours.shares[0] > 230


@pytest.mark.parametrize(("rgb", "name"), [((0, 0, 255), "blue"), ((0, 0, 128), "navy")])
def test_saturated_blue_and_navy_have_their_names(rgb: tuple[int, int, int], name: str) -> None:
    shares = visible_colours(product(rgb, (255, 255, 255)))
    assert NAMES[int(shares.argmax())] == name


def test_a_damaged_thumbnail_has_no_colours() -> None:
    file = BytesIO()
    product((200, 25, 35), (255, 255, 255)).save(file, "JPEG")
    for data in (b"jpeg", b"", file.getvalue()[:200]):
        assert not any(colours_of_thumbnail(data).shares)


@pytest.mark.parametrize(
    ("name", "basic"),
    [("navy blue", "navy"), ("gray", "grey"), ("rotes", "red"), ("dunkelblau", "navy"),
     ("turquoise", "teal"), ("grun", "green"), ("weisse", "white"), ("dress", None)],
)  # fmt: skip
def test_other_names_of_colours_mean_basic_ones(name: str, basic: str | None) -> None:
    assert colour_words.basic_name(name) == basic


def test_every_mixture_is_of_basic_colours() -> None:
    for name in colour_words.MIXTURES:
        row = colour_words.colour_row(name)
        assert row is not None and row.sum() == pytest.approx(1, abs=1e-6)
    assert colour_words.rows(["red"], ["navy"]).sum(1).tolist() == [1, -1]
