"""SQL that reads one product by its sku: its id, and everything the catalogue holds of it."""

from __future__ import annotations

from sqlalchemy import Connection, text

from app.errors import UnknownProduct
from app.store import products
from app.types import ProductDetails, StoredPicture

PICTURES = """
SELECT pic.width, pic.height, pic.thumbnail, pp.uri
FROM product_picture AS pp JOIN picture AS pic ON pic.id = pp.picture_id
WHERE pp.product_id = :product ORDER BY pp.position, pic.id"""


def id_of(connection: Connection, sku: str) -> int:
    """The id of a product; raises UnknownProduct, which names a few skus that begin like it."""
    found = products.ids(connection, [sku]).get(sku)
    if found is None:
        near = products.similar_skus(connection, sku)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise UnknownProduct(f"No product of the catalogue has the sku {sku!r}.{hint}")
    return found


def details(connection: Connection, sku: str) -> ProductDetails:
    """What the catalogue holds of a product; raises UnknownProduct."""
    id_ = id_of(connection, sku)
    rows = connection.execute(text(PICTURES), {"product": id_})
    shown = tuple(
        StoredPicture(row.width, row.height, bytes(row.thumbnail), row.uri) for row in rows
    )
    return ProductDetails(products.by_id(connection, [id_])[id_], shown)
