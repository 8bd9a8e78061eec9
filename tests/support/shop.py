"""Ready-made catalogues of small pictures for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image

from app.bootstrap import App
from app.catalog.batch_write import Batch
from app.catalog.entries import ProductEntry
from app.images.decoding import decode
from app.images.thumbnails import thumbnail
from app.types import PictureData, PictureRef, Product, Vectors
from support.colours import photo


@lru_cache(maxsize=20_000)
def sha(seed: int) -> bytes:
    """The sha256 of photo(seed)."""
    return hashlib.sha256(photo(seed)).digest()


@lru_cache(maxsize=5_000)
def _picture(seed: int) -> Image.Image:
    return decode(photo(seed))


@lru_cache(maxsize=20_000)
def _stored(seed: int) -> PictureData:
    picture = _picture(seed)
    return PictureData(sha(seed), *picture.size, thumbnail(picture))


def add(app: App, shown: dict[str, Sequence[int]], **fields: object) -> None:
    """Write products (sku -> seeds of their photos) through the catalogue service."""
    add_products(app, [
        (Product(sku, title=f"title {sku}", **fields), seeds)  # type: ignore[arg-type]
        for sku, seeds in shown.items()
    ])  # fmt: skip


def add_products(app: App, shown: Sequence[tuple[Product, Sequence[int]]]) -> None:
    """Write products, each with the seeds of its photos, through the catalogue service."""
    seeds = sorted({seed for _, seeds in shown for seed in seeds})
    vectors = app.encoder().encode_pictures([_picture(seed) for seed in seeds])
    stored = {sha(seed): _stored(seed) for seed in seeds}
    entries = [
        ProductEntry(product, tuple(PictureRef(sha(seed), f"{seed}.png") for seed in seeds))
        for product, seeds in shown
    ]
    by_sha = dict(zip((sha(seed) for seed in seeds), vectors, strict=True))
    app.catalog.write(Batch(entries, stored, by_sha), app.catalog.model())


def numbered(count: int, first: int = 0) -> dict[str, list[int]]:
    """Products P0000, P0001, ... with one photo each."""
    return {f"P{n:04}": [n] for n in range(first, first + count)}


def vectors(app: App, seeds: Sequence[int]) -> Vectors:
    """The vectors of photos by the encoder of the app."""
    return app.encoder().encode_pictures([_picture(seed) for seed in seeds])


def oracle(rows: dict[int, np.ndarray], query: np.ndarray, k: int) -> list[tuple[int, float]]:
    """Ids and cosine distances of the k nearest rows, in float64; ties ordered by id."""
    ids = np.array(sorted(rows))
    table = np.stack([rows[id_] for id_ in ids]).astype(np.float64)
    query = query.astype(np.float16).astype(np.float64)
    cosine = table @ query / np.linalg.norm(table, axis=1) / np.linalg.norm(query)
    order = np.lexsort((ids, 1 - cosine))[:k]
    return [(int(ids[n]), float(1 - cosine[n])) for n in order]
