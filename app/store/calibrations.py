"""SQL of `calibration`: what distances mean under a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, text

from app.types import Calibration, CutOff

SUFFIXES = ("_distance", "_pairs", "_others")
CUT_OFFS = ("same_photo", "same_product", "similar")
COLUMNS = tuple(cut + suffix for cut in CUT_OFFS for suffix in SUFFIXES)


def read(connection: Connection, model_id: int) -> tuple[Calibration, ...]:
    """All rows of a model, the whole catalogue first, then the categories by name."""
    sql = f"""SELECT category, {", ".join(COLUMNS)} FROM calibration
        WHERE model_id = :model ORDER BY category"""
    return tuple(_calibration(row) for row in connection.execute(text(sql), {"model": model_id}))


def replace(connection: Connection, model_id: int, rows: Sequence[Calibration]) -> bool:
    """Put these rows in the place of all rows of the model; False if it is not active any more.

    Two that do so at once take turns.
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


def _calibration(row: Row[Any]) -> Calibration:
    cuts = [CutOff(*row[first : first + 3]) for first in range(1, len(COLUMNS), 3)]
    return Calibration(row.category or None, *cuts)


def _values(calibration: Calibration) -> dict[str, Any]:
    values: dict[str, Any] = {"category": calibration.category or ""}
    for name in CUT_OFFS:
        cut: CutOff = getattr(calibration, name)
        values |= {
            f"{name}_distance": cut.distance,
            f"{name}_pairs": cut.pairs,
            f"{name}_others": cut.others,
        }
    return values
