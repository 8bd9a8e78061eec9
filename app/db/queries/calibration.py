"""SQL of `calibration`: its rows, and the labelled pairs of pictures that they are fitted from.

Samples are taken in the order of hashes, so the same catalogue gives the same sample. Distances are
cosine distances (0 to 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, text

from app.db.pipeline import Deferred, Pipeline
from app.types import UNKNOWN_CLOSE_CUT, Calibration, CloseCut, CutOff, Model, Vector

SUFFIXES = ("_distance", "_pairs", "_others")
CUT_OFFS = ("same_photo", "same_product", "similar")
CLOSE = ("similarity", "midpoint", "width", "present", "absent", "detected", "false_alarms")
COLUMNS = (
    *(cut + suffix for cut in CUT_OFFS for suffix in SUFFIXES),
    *(f"close_{name}" for name in CLOSE),
)


@dataclass(frozen=True, slots=True)
class SampledPicture:
    """A picture with its embedding, the ids of the products that show it, and their category.

    `category` is None if the products have none, or different ones. `side` is the longer side of
    the picture, of which only a thumbnail is stored, in pixels.
    """

    picture_id: int
    products: tuple[int, ...]
    category: str | None
    vector: Vector
    side: int


def sample_pictures(connection: Connection, model: Model, count: int) -> list[SampledPicture]:
    """At most `count` pictures that have an embedding and are shown by a product."""
    sql = """
        SELECT drawn.id, shown.products, shown.category, drawn.side,
            drawn.vec::vector::real[] AS vector
        FROM (
            SELECT pic.id, pic.sha256, greatest(pic.width, pic.height) AS side, e.vec
            FROM picture AS pic JOIN embedding AS e ON e.picture_id = pic.id
            WHERE e.model_id = :model ORDER BY pic.sha256 LIMIT :count
        ) AS drawn, LATERAL (
            SELECT array_agg(p.id) AS products,
                CASE WHEN min(p.category) = max(p.category) THEN nullif(min(p.category), '') END
                    AS category
            FROM product_picture AS pp JOIN product AS p ON p.id = pp.product_id
            WHERE pp.picture_id = drawn.id
        ) AS shown
        WHERE shown.products IS NOT NULL ORDER BY drawn.sha256"""
    rows = connection.execute(text(sql), {"model": model.id, "count": count})
    return [
        SampledPicture(
            row.id,
            tuple(row.products),
            row.category,
            np.array(row.vector, dtype=np.float32),
            row.side,
        )
        for row in rows
    ]


def thumbnails(connection: Connection, ids: Sequence[int]) -> dict[int, bytes]:
    """The thumbnails (JPEG) of pictures, by id."""
    sql = "SELECT id, thumbnail FROM picture WHERE id = ANY(CAST(:ids AS bigint[]))"
    rows = connection.execute(text(sql), {"ids": list(ids)})
    return {row.id: bytes(row.thumbnail) for row in rows}


def shown_categories(connection: Connection, model: Model) -> tuple[NDArray[np.int64], list[str]]:
    """Ids of the pictures that products show, ascending, shape (n,), and their n categories.

    A category is '' if the products have none, or different ones.
    """
    sql = """
        SELECT pp.picture_id,
            CASE WHEN min(p.category) = max(p.category) THEN min(p.category) ELSE '' END
                AS category
        FROM product_picture AS pp JOIN product AS p ON p.id = pp.product_id
        WHERE EXISTS (
            SELECT FROM embedding AS e
            WHERE e.model_id = :model AND e.picture_id = pp.picture_id)
        GROUP BY pp.picture_id ORDER BY pp.picture_id"""
    rows = connection.execute(text(sql), {"model": model.id}).all()
    return np.array([row.picture_id for row in rows], np.int64), [row.category for row in rows]


def with_siblings(connection: Connection, model: Model, ids: Sequence[int]) -> set[int]:
    """Those of the pictures (id) whose product has another picture with an embedding."""
    sql = """
        SELECT DISTINCT own.picture_id
        FROM product_picture AS own JOIN product_picture AS other
            ON other.product_id = own.product_id AND other.picture_id <> own.picture_id
        JOIN embedding AS e ON e.model_id = :model AND e.picture_id = other.picture_id
        WHERE own.picture_id = ANY(CAST(:ids AS bigint[]))"""
    return set(connection.execute(text(sql), {"model": model.id, "ids": list(ids)}).scalars())


def own_pairs(connection: Connection, model: Model, count: int) -> Sequence[Row[Any]]:
    """Distances of two pictures of the same product: rows of category and distance.

    One pair per product, of at most `count` products, so that all weigh the same. Pictures that
    another product also shows are left out: they may be size charts.
    """
    sql = """
        SELECT pair.category, a.vec <=> b.vec AS distance
        FROM (
            SELECT nullif(p.category, '') AS category,
                (array_agg(pic.id ORDER BY pic.sha256))[1:2] AS ids
            FROM product AS p JOIN product_picture AS pp ON pp.product_id = p.id
            JOIN picture AS pic ON pic.id = pp.picture_id
            JOIN embedding AS e ON e.picture_id = pic.id AND e.model_id = :model
            WHERE NOT EXISTS (
                SELECT FROM product_picture AS other
                WHERE other.picture_id = pic.id AND other.product_id <> p.id)
            GROUP BY p.id HAVING count(*) > 1 ORDER BY md5(p.sku) LIMIT :count
        ) AS pair
        JOIN embedding AS a ON a.model_id = :model AND a.picture_id = pair.ids[1]
        JOIN embedding AS b ON b.model_id = :model AND b.picture_id = pair.ids[2]"""
    return connection.execute(text(sql), {"model": model.id, "count": count}).all()


def judged_pairs(connection: Connection, model: Model, count: int) -> Sequence[Row[Any]]:
    """Distances of the nearest two different pictures of the products in the newest verdicts.

    Rows of same, category (None if the products differ in it) and distance.
    """
    sql = """
        SELECT v.same, near.distance,
            CASE WHEN a.category = b.category THEN nullif(a.category, '') END AS category
        FROM (SELECT * FROM duplicate_verdict ORDER BY decided_at DESC, sku_a, sku_b LIMIT :count)
            AS v
        JOIN product AS a ON a.sku = v.sku_a JOIN product AS b ON b.sku = v.sku_b,
        LATERAL (
            SELECT min(ea.vec <=> eb.vec) AS distance
            FROM product_picture AS pa
            JOIN embedding AS ea ON ea.model_id = :model AND ea.picture_id = pa.picture_id
            JOIN product_picture AS pb ON pb.product_id = b.id AND pb.picture_id <> pa.picture_id
            JOIN embedding AS eb ON eb.model_id = :model AND eb.picture_id = pb.picture_id
            WHERE pa.product_id = a.id
        ) AS near
        WHERE near.distance IS NOT NULL"""
    return connection.execute(text(sql), {"model": model.id, "count": count}).all()


def known_same(connection: Connection, shown: Sequence[int], others: Sequence[int]) -> set[int]:
    """Those of the products `others` (ids) that are the same as one of `shown` (ids).

    A verdict decides; without one, products with equal identity keys are the same.
    """
    sql = """
        SELECT DISTINCT b.id FROM product AS a CROSS JOIN product AS b
        LEFT JOIN duplicate_verdict AS v
            ON v.sku_a = least(a.sku COLLATE "C", b.sku COLLATE "C")
            AND v.sku_b = greatest(a.sku COLLATE "C", b.sku COLLATE "C")
        WHERE a.id = ANY(CAST(:shown AS bigint[])) AND b.id = ANY(CAST(:found AS bigint[]))
            AND coalesce(v.same, a.identity_key <> '' AND a.identity_key = b.identity_key)"""
    rows = connection.execute(text(sql), {"shown": list(shown), "found": list(others)})
    return set(rows.scalars())


def close_cut(connection: Connection, model_id: int) -> CloseCut | None:
    """What was fitted for "no close match" of the whole catalogue; None if the model was not
    calibrated since that is fitted."""
    names = ", ".join(f"close_{name}" for name in CLOSE)
    sql = f"SELECT {names} FROM calibration WHERE model_id = :model AND category = ''"
    row = connection.execute(text(sql), {"model": model_id}).one_or_none()
    cut = None if row is None else CloseCut(*row)
    return None if cut is None or cut == UNKNOWN_CLOSE_CUT else cut


def read(connection: Connection, model_id: int) -> tuple[Calibration, ...]:
    """All rows of a model: the whole catalogue first, then the categories by name."""
    sql = f"""SELECT category, {", ".join(COLUMNS)} FROM calibration
        WHERE model_id = :model ORDER BY category"""
    return tuple(_calibration(row) for row in connection.execute(text(sql), {"model": model_id}))


def read_in(pipeline: Pipeline, model_id: int) -> Deferred[tuple[Calibration, ...]]:
    """`read` as a statement of a pipeline."""
    rows = pipeline.send(
        f"""SELECT category, {", ".join(COLUMNS)} FROM calibration
        WHERE model_id = %(model)s ORDER BY category""",
        {"model": model_id},
    )
    return lambda: tuple(map(_calibration, rows()))


def replace(connection: Connection, model_id: int, rows: Sequence[Calibration]) -> bool:
    """Replace all rows of the model; returns False if the model is no longer active.

    The row lock on the model makes concurrent calls wait for each other.
    """
    lock = text("SELECT FROM model WHERE id = :model AND active FOR NO KEY UPDATE")
    if connection.execute(lock, {"model": model_id}).one_or_none() is None:
        return False
    connection.execute(text("DELETE FROM calibration WHERE model_id = :model"), {"model": model_id})
    names = ("category", *COLUMNS)
    insert = f"""INSERT INTO calibration (model_id, {", ".join(names)})
        VALUES (:model, {", ".join(f":{name}" for name in names)})"""
    if rows:
        connection.execute(text(insert), [{"model": model_id, **_values(row)} for row in rows])
    return True


def from_json(rows: Sequence[Mapping[str, Any]]) -> tuple[Calibration, ...]:
    """Calibrations of rows as JSON objects."""
    names = ("category", *COLUMNS)
    return tuple(_calibration([row[name] for name in names]) for row in rows)


def _calibration(row: Sequence[Any]) -> Calibration:
    category, *numbers = row
    split = len(CUT_OFFS) * len(SUFFIXES)
    photo, product, similar = (CutOff(*numbers[first : first + 3]) for first in range(0, split, 3))
    close = CloseCut(*numbers[split:])
    return Calibration(category or None, photo, product, similar, close)


def _values(calibration: Calibration) -> dict[str, Any]:
    values: dict[str, Any] = {"category": calibration.category or ""}
    for name in CUT_OFFS:
        cut: CutOff = getattr(calibration, name)
        values |= {
            f"{name}_distance": cut.distance,
            f"{name}_pairs": cut.pairs,
            f"{name}_others": cut.others,
        }
    values |= {f"close_{name}": getattr(calibration.close, name) for name in CLOSE}
    return values
