"""Photos of rooms in which products of `numbered` stand."""

from __future__ import annotations

from io import BytesIO

from PIL import Image

from app.types import SearchResult
from support.colours import photo

FIRST, SECOND = 7, 21


def sku(number: int) -> str:
    """The sku that `numbered` gives to the product of a photo."""
    return f"P{number:04}"


def scene(*places: tuple[int, tuple[int, int, int, int]]) -> bytes:
    """A PNG of a grey room with photos of `numbered` products at the given boxes."""
    room = Image.new("RGB", (400, 300), (128, 128, 128))
    for number, (left, top, right, bottom) in places:
        with Image.open(BytesIO(photo(number))) as picture:
            shape = (right - left, bottom - top)
            room.paste(picture.resize(shape, Image.Resampling.NEAREST), (left, top))
    file = BytesIO()
    room.save(file, "PNG")
    return file.getvalue()


def two() -> bytes:
    return scene((FIRST, (10, 40, 130, 160)), (SECOND, (250, 120, 370, 240)))


def first_skus(result: SearchResult) -> set[str]:
    return {region.matches[0].product.sku for region in result.regions}
