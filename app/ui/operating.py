"""What the page offers to those who run it: its metrics and its health."""

from __future__ import annotations

import logging

from app.bootstrap import App
from app.errors import LookalikeError
from app.operations.health import Liveness
from app.operations.metrics_server import MetricsServer

_log = logging.getLogger("lookalike.page")


def serve_metrics(app: App) -> MetricsServer | None:
    """Serve this process's metrics and health; a page without them is better than no page."""
    settings = app.settings
    try:
        liveness = Liveness(app.engine)
        return MetricsServer(
            settings.metrics_host, settings.page_metrics_port, app.metrics.registry, liveness.status
        )
    except LookalikeError as exc:
        _log.warning("%s", exc)
        return None
