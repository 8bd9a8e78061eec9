"""SQL of `duplicate_verdict`: decisions of people about pairs of products."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from app.types import Verdict

FIELDS = "sku_a, sku_b, same, decided_by, decided_at"
# Sorted by code points, as in Python, whatever the collation of the database.
ORDER = 'ORDER BY sku_a COLLATE "C", sku_b COLLATE "C"'

RELATED = f"""
WITH RECURSIVE near AS (
    {{skus}}
  UNION
    SELECT same.other FROM near CROSS JOIN LATERAL (
        SELECT sku_b AS other FROM duplicate_verdict WHERE sku_a = near.sku AND same
        UNION ALL
        SELECT sku_a FROM duplicate_verdict WHERE sku_b = near.sku AND same) AS same
)
SELECT DISTINCT {FIELDS} FROM near CROSS JOIN LATERAL (
    SELECT * FROM duplicate_verdict WHERE sku_a = near.sku
    UNION ALL
    SELECT * FROM duplicate_verdict WHERE sku_b = near.sku) AS concerning"""
"""All verdicts on some skus, and on those that verdicts say are the same as one of these, through
any number of steps. `skus` is a SELECT of the column sku."""


def record(connection: Connection, sku_a: str, sku_b: str, same: bool, decided_by: str) -> Verdict:
    """Store a verdict on two skus, given in either order; replaces an earlier one."""
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


def restore(connection: Connection, verdict: Verdict) -> None:
    """Store a verdict as it was recorded, on two skus that have none now."""
    connection.execute(
        text(
            f"""INSERT INTO duplicate_verdict ({FIELDS})
            VALUES (:sku_a, :sku_b, :same, :decided_by, :decided_at)"""
        ),
        asdict(verdict),
    )


def remove(connection: Connection, sku_a: str, sku_b: str) -> None:
    """Delete the verdict on two skus, given in either order."""
    first, second = sorted((sku_a, sku_b))
    connection.execute(
        text("DELETE FROM duplicate_verdict WHERE sku_a = :first AND sku_b = :second"),
        {"first": first, "second": second},
    )


def related(connection: Connection, skus: Sequence[str]) -> list[Verdict]:
    """All verdicts that concern these skus.

    Also those on skus that verdicts declare to be the same as one of these, through any number of
    steps.
    """
    sql = RELATED.format(skus="SELECT unnest(CAST(%(skus)s AS text[])) AS sku")
    return from_rows(connection.exec_driver_sql(sql, {"skus": list(skus)}))


def newest(
    connection: Connection, limit: int, offset: int = 0
) -> list[tuple[Verdict, str | None, str | None]]:
    """Verdicts, newest first, with the titles of both products (None if a product was deleted)."""
    rows = connection.execute(
        text(
            f"""SELECT {FIELDS}, a.title AS title_a, b.title AS title_b
            FROM (SELECT * FROM duplicate_verdict
                ORDER BY decided_at DESC, sku_a, sku_b LIMIT :limit OFFSET :offset) AS newest
            LEFT JOIN product AS a ON a.sku = sku_a LEFT JOIN product AS b ON b.sku = sku_b
            ORDER BY decided_at DESC, sku_a, sku_b"""
        ),
        {"limit": limit, "offset": offset},
    )
    return [(_verdict(row), row.title_a, row.title_b) for row in rows]


def all_verdicts(connection: Connection) -> list[Verdict]:
    """All verdicts."""
    rows = connection.execute(text(f"SELECT {FIELDS} FROM duplicate_verdict {ORDER}"))
    return [_verdict(row) for row in rows]


def from_rows(rows: Iterable[Any]) -> list[Verdict]:
    """Verdicts of rows with the columns FIELDS, in the order of `related`."""
    return sorted(map(_verdict, rows), key=_skus)


def from_json(rows: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Verdicts of the FIELDS of rows as JSON objects, in the order of `related`."""
    found = (
        Verdict(
            row["sku_a"], row["sku_b"], row["same"], row["decided_by"],
            datetime.fromisoformat(row["decided_at"]),
        )
        for row in rows
    )  # fmt: skip
    return sorted(found, key=_skus)


def lead_beyond(verdicts: Iterable[Verdict], skus: Set[str]) -> bool:
    """Whether a verdict says that one of these products is the same as one that is not among them;
    the verdicts on that one then count too, as in `related`."""
    return any(each.same and not {each.sku_a, each.sku_b} <= skus for each in verdicts)


def _skus(verdict: Verdict) -> tuple[str, str]:
    """Sort key: the skus by code points, as ORDER sorts."""
    return verdict.sku_a, verdict.sku_b


def _verdict(row: Any) -> Verdict:
    return Verdict(row.sku_a, row.sku_b, row.same, row.decided_by, row.decided_at)
