"""`lookalike worker`: rebuild the index in the background until a stop signal."""

from __future__ import annotations

import logging
import threading

import click

from app.cli.ending import AtOnce
from app.cli.output import note


@click.command()
def worker() -> AtOnce:
    """Rebuild the index when enough has changed; serve metrics.

    It also deletes recorded searches and events that are older than LOOKALIKE_EVENT_DAYS, and
    stored photos that have expired, and computes the colours of pictures that have none.

    Runs until SIGTERM or Ctrl-C and serves /metrics and /healthz. LOOKALIKE_WORKER_COST, _AGE_S
    and _EVERY_S set when to rebuild. Several workers may run, on any hosts; they take turns.
    """
    from app.bootstrap import App
    from app.operations.analyst_watchdog import AnalystWatchdog
    from app.operations.fallback_upkeep import FallbackUpkeep
    from app.operations.metrics_server import MetricsServer
    from app.operations.picture_colours import ColourUpkeep
    from app.operations.search_events import EventCleanupLoop
    from app.operations.stop_signals import stop_on_signals
    from app.operations.worker import Worker

    logging.getLogger("lookalike").setLevel(logging.INFO)
    stop = threading.Event()
    with App() as app:
        settings = app.settings
        work = Worker(app.engine, app.indexer, settings, stop)
        with stop_on_signals(stop), MetricsServer(
            settings.metrics_host, settings.worker_metrics_port,
            work.metrics.registry, work.liveness.status,
        ) as server:  # fmt: skip
            note(f"The worker is running; {server.address}/metrics and /healthz.")
            with (
                AnalystWatchdog(app.engine, settings.analyst_timeout_s),
                FallbackUpkeep(app.engine, settings.worker_poll_s),
                ColourUpkeep(app.engine),
                EventCleanupLoop(app.events),
            ):
                work.run()
    note("The worker has stopped.")
    return AtOnce()
