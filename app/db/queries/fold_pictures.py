"""SQL that reads the pictures by which products with the same words are told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from app.db.pipeline import Deferred, Pipeline
from app.types import Model

MAX_COMPARED = 50
"""The first pictures of a product, which are compared with those of another product."""

MAX_KEYS = 8
"""A picture shown by products with more identity keys is a placeholder or a size chart: it is not
compared."""

MAX_SHOWN = 1000
"""Products of a picture that are looked at to count their identity keys."""

# The identity keys of a picture are counted once, however many of the products show it, and not
# at all where few products show it.
COMPARED_PICTURES = f"""few AS MATERIALIZED (
        SELECT p.id AS product_id, p.sku, own.picture_id
        FROM {{products}} CROSS JOIN LATERAL (
            SELECT pp.picture_id FROM product_picture AS pp WHERE pp.product_id = p.id
            ORDER BY pp.position, pp.picture_id LIMIT {MAX_COMPARED}) AS own
    ), telling AS MATERIALIZED (
        SELECT shown.picture_id FROM (SELECT DISTINCT picture_id FROM few) AS shown
        WHERE CASE WHEN (
            SELECT count(*) FROM (
                SELECT FROM product_picture AS o WHERE o.picture_id = shown.picture_id
                LIMIT {MAX_KEYS + 1}) AS showing) <= {MAX_KEYS}
        THEN true ELSE (
            SELECT count(DISTINCT others.identity_key) FROM (
                SELECT other.identity_key
                FROM product_picture AS o JOIN product AS other ON other.id = o.product_id
                WHERE o.picture_id = shown.picture_id LIMIT {MAX_SHOWN}) AS others
            ) <= {MAX_KEYS} END
    ), told AS MATERIALIZED (
        SELECT few.product_id, few.sku, few.picture_id FROM few JOIN telling USING (picture_id)
    )"""
"""CTEs: the pictures of products that are compared, and `told`, those among them that tell products
apart. `products` is a FROM clause with the products as `p`."""

PACKED = """
    FROM told JOIN embedding AS e ON e.model_id = {model} AND e.picture_id = told.picture_id"""
"""The pictures with their embeddings; `unpacked` reads their AGGREGATE."""

AGGREGATE = "string_agg(halfvec_send(e.vec), '' ORDER BY told.picture_id)"
"""All vectors of a product in one value: the driver reads it much faster than vectors as text."""


def vectors_in(
    pipeline: Pipeline, model: Model, skus: Sequence[str]
) -> Deferred[dict[str, NDArray[np.float16]]]:
    """The embeddings of the compared pictures of products, (pictures, dim), float16, by sku.

    Products without any are left out.
    """
    compared = COMPARED_PICTURES.format(
        products="(SELECT * FROM product WHERE sku = ANY(CAST(%(skus)b AS text[]))) AS p"
    )
    vectors = PACKED.format(model=model.id)
    sql = f"WITH {compared} SELECT told.sku, {AGGREGATE} AS packed {vectors} GROUP BY told.sku"
    rows = pipeline.send(sql, {"skus": list(skus)})
    return lambda: {row.sku: unpacked(row.packed, model) for row in rows()}


def unpacked(packed: bytes, model: Model) -> NDArray[np.float16]:
    """The vectors in an AGGREGATE, shape (n, dim), float16."""
    return np.frombuffer(packed, dtype=_layout(model.dim))["vec"].astype(np.float16)


def each_unpacked(packed: Mapping[str, bytes], model: Model) -> dict[str, NDArray[np.float16]]:
    """The vectors in several AGGREGATEs by sku, each (n, dim), float16, read at once."""
    rows, size = unpacked(b"".join(packed.values()), model), _layout(model.dim).itemsize
    ends = [*accumulate((len(data) // size for data in packed.values()), initial=0)]
    return {sku: rows[start:end] for sku, (start, end) in zip(packed, pairwise(ends), strict=True)}


@lru_cache(maxsize=16)
def _layout(dim: int) -> np.dtype[np.void]:
    """A vector as `halfvec_send` writes it."""
    return np.dtype([("dim", ">u2"), ("unused", ">u2"), ("vec", ">f2", dim)])
