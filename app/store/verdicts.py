"""SQL of `duplicate_verdict`: what people decided about pairs of products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, text

from app.folding import Verdict

FIELDS = "sku_a, sku_b, same, decided_by, decided_at"
# As Python orders text: by code points, whatever the language of the database.
ORDER = 'ORDER BY sku_a COLLATE "C", sku_b COLLATE "C"'


def record(connection: Connection, sku_a: str, sku_b: str, same: bool, decided_by: str) -> Verdict:
    """Write what was decided about two skus, in either order; it replaces an earlier verdict."""
    first, second = sorted((sku_a, sku_b))
    row = connection.execute(
        text(
            f"""INSERT INTO duplicate_verdict (sku_a, sku_b, same, decided_by)
            VALUES (:first, :second, :same, :decided_by)
            ON CONFLICT (sku_a, sku_b) DO UPDATE
            SET same = excluded.same, decided_by = excluded.decided_by, decided_at = now()
            RETURNING {FIELDS}"""
        ),
        {"first": first, "second": second, "same": same, "decided_by": decided_by},
    ).one()
    return _verdict(row)


def around(connection: Connection, skus: Sequence[str]) -> list[Verdict]:
    """All verdicts that bear on these skus.

    Those that touch a sku that is one of these or the same as one of these, through any number of
    others.
    """
    rows = connection.execute(
        text(
            f"""WITH RECURSIVE same AS (
                SELECT sku_a AS sku, sku_b AS other FROM duplicate_verdict WHERE same
                UNION ALL
                SELECT sku_b, sku_a FROM duplicate_verdict WHERE same
            ), near AS (
                SELECT unnest(CAST(:skus AS text[])) AS sku
                UNION
                SELECT same.other FROM near JOIN same USING (sku)
            )
            SELECT {FIELDS} FROM duplicate_verdict
            WHERE sku_a IN (SELECT sku FROM near) OR sku_b IN (SELECT sku FROM near)
            {ORDER}"""
        ),
        {"skus": list(skus)},
    )
    return [_verdict(row) for row in rows]


def every(connection: Connection) -> list[Verdict]:
    """All verdicts."""
    rows = connection.execute(text(f"SELECT {FIELDS} FROM duplicate_verdict {ORDER}"))
    return [_verdict(row) for row in rows]


def _verdict(row: Row[Any]) -> Verdict:
    return Verdict(row.sku_a, row.sku_b, row.same, row.decided_by, row.decided_at)
