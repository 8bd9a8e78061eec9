"""A test encoder that understands words with known answers, and products with titles."""

from __future__ import annotations

from app.bootstrap import App
from app.types import Query, SearchResult, Vectors
from support.colours import ColourEncoder, photo
from support.shop import add


class TextEncoder(ColourEncoder):
    """Encodes a text as the photo whose number is in it."""

    def __init__(self, name: str = "colours") -> None:
        super().__init__(name)
        self.reads_words = True

    def encode_words(self, words: list[str]) -> Vectors:
        from app.images.decoding import decode

        numbers = [[int(part) for part in each.split() if part.isdigit()] for each in words]
        return self.encode_pictures(
            [decode(photo((photo_numbers or [0])[0])) for photo_numbers in numbers]
        )


def add_titled(app: App, sku: str, title: str, seed: int, **more: object) -> None:
    """Add one product with a title."""
    add(app, {sku: [seed]}, **more)
    with app.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE product SET title = %(title)s WHERE sku = %(sku)s", {"title": title, "sku": sku}
        )


def skus(result: SearchResult) -> list[str]:
    return [match.product.sku for match in result.matches]


def ask(app: App, seed: int = 1000, **more: object) -> SearchResult:
    return app.search.search(Query(picture=photo(seed), **more))  # type: ignore[arg-type]
