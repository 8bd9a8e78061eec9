"""SQL of `tuning`: which path of a filtered search is the cheapest here, as it was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text

from app.types import Crossovers


def read(connection: Connection, model_id: int) -> Crossovers:
    """What was measured for a model; the defaults where nothing was."""
    sql = "SELECT exact_pictures, deep_share FROM tuning WHERE model_id = %(model)s"
    row = connection.exec_driver_sql(sql, {"model": model_id}).one_or_none()
    return Crossovers(*row) if row else Crossovers()


def save(
    connection: Connection, model_id: int, found: Crossovers, figures: Mapping[str, Any]
) -> None:
    """Keep what was measured, in place of what was there."""
    connection.execute(
        text(
            """INSERT INTO tuning (model_id, exact_pictures, deep_share, figures)
            VALUES (:model, :exact, :share, CAST(:figures AS jsonb))
            ON CONFLICT (model_id) DO UPDATE SET exact_pictures = excluded.exact_pictures,
                deep_share = excluded.deep_share, figures = excluded.figures,
                measured_at = clock_timestamp()"""
        ),
        {
            "model": model_id,
            "exact": found.exact_pictures,
            "share": found.deep_share,
            "figures": json.dumps(figures),
        },
    )
