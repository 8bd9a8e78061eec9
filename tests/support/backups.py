"""What the tests of backup and restore share: every table filled, and how a database is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.bootstrap import App
from app.operations.restore import restore


def tables(app: App) -> list[str]:
    with app.engine.connect() as connection:
        sql = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        return list(connection.exec_driver_sql(sql + " AND relkind = 'r'").scalars())


def ask(app: App, sql: str) -> list[tuple[object, ...]]:
    with app.engine.connect() as connection:
        plain = connection.execution_options(no_parameters=True)
        return [tuple(row) for row in plain.exec_driver_sql(sql)]


FILLED = """
SELECT register_model('other', '1', 3, 'abc');
INSERT INTO embedding (model_id, picture_id, vec) SELECT 2, id, '[1,0,0]' FROM picture;
INSERT INTO query_sample (model_id, vec) SELECT model_id, vec FROM embedding;
INSERT INTO tuning (model_id, exact_pictures, deep_share) VALUES (1, 7, 0.5);
INSERT INTO calibration (model_id, category, similar_distance) VALUES (1, 'a''"\\b', 0.25);
INSERT INTO model_change (former_id, active_id, former_name, active_name, forced)
    VALUES (2, 1, 'other', 'colours', 'for once');
INSERT INTO model_projection (model_id, base_name, base_revision, base_fingerprint, weights,
    provenance) VALUES (2, 'colours', '1', 'def', '\\x00', '{"source": "verdicts"}');
INSERT INTO ingest_run (source, state, report) VALUES ('x', 'finished', '{"added": 1}');
INSERT INTO ingest_reject (run_id, line, reason) VALUES (1, 1, 'no picture');
INSERT INTO query_photo (id, fingerprint, vector, preview, expires_at)
    VALUES ('p', 'abc', '\\x00', '\\xff', now() + interval '1 hour');
INSERT INTO api_key (id, name, scope, digest, origins)
    VALUES ('k', 'shop', 'search', sha256('x'), '{https://shop.example}');
INSERT INTO kept_photo (id, preview) VALUES ('p', '\\xff');
SELECT add_search_partitions(0);
INSERT INTO search_request (query_id, kind, k, skipped, shown, folded, model, path)
    VALUES ('q', 'text', 5, 0, '{P0001}', '{}', 'colours', 'words');
INSERT INTO search_event (query_id, action_name, sku) VALUES ('q', 'click', 'P0001');
INSERT INTO api_secret (name, secret) VALUES ('cursors', '\\x01');
INSERT INTO picture_colours SELECT id, 1, 3, 200, convert_to(repeat('x', 18), 'utf8') FROM picture;
"""


def refused(app: App, folder: Path, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        restore(app.engine, folder)
    assert tables(app) == []
