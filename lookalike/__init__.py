"""Find products by picture: the stable interface for programs.

    import lookalike

    with lookalike.connect() as shop:
        shop.upsert([{"sku": "MUG-1", "title": "Red mug", "images": ["mug.jpg"]}])
        for match in shop.search("photo.jpg").matches:
            print(match.product.sku, match.similarity)

Names that are not in `__all__`, and all other packages of this distribution, are internal.
"""

from app.errors import (
    BadImage,
    BadInput,
    BadSource,
    Busy,
    DatabaseUnavailable,
    DatabaseUnsuitable,
    LookalikeError,
    ModelMismatch,
    ModelUnavailable,
    NoModel,
    NoWords,
    SchemaMismatch,
    UnknownProduct,
    UnsupportedPlatform,
)
from app.library.catalogue import Catalogue, Rejected, UpsertResult, connect
from app.library.pictures import Picture
from app.types import (
    Build,
    Count,
    Dropped,
    Filters,
    Folded,
    Match,
    Plan,
    Product,
    ProductDetails,
    Query,
    Region,
    RegionMatches,
    SearchResult,
    Shortfall,
    SimilarListing,
    StoredPicture,
    WordsReading,
)

__all__ = [
    "BadImage",
    "BadInput",
    "BadSource",
    "Build",
    "Busy",
    "Catalogue",
    "Count",
    "DatabaseUnavailable",
    "DatabaseUnsuitable",
    "Dropped",
    "Filters",
    "Folded",
    "LookalikeError",
    "Match",
    "ModelMismatch",
    "ModelUnavailable",
    "NoModel",
    "NoWords",
    "Picture",
    "Plan",
    "Product",
    "ProductDetails",
    "Query",
    "Region",
    "RegionMatches",
    "Rejected",
    "SchemaMismatch",
    "SearchResult",
    "Shortfall",
    "SimilarListing",
    "StoredPicture",
    "UnknownProduct",
    "UnsupportedPlatform",
    "UpsertResult",
    "WordsReading",
    "connect",
]
