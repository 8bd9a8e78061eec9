"""`lookalike api`: serve the HTTP API."""

from __future__ import annotations

import click

from app.cli.output import note


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8502, show_default=True, type=click.IntRange(0, 65535),
    help="TCP port; 0 for any free one.",
)  # fmt: skip
def api(host: str, port: int) -> None:
    """Serve the HTTP API until Ctrl-C.

    On a loopback address, requests from this machine may read without a key as long as none was
    created. Elsewhere every request needs a key.
    """
    from app.api.server import ApiServer
    from app.bootstrap import App

    with App() as app, ApiServer(app, host, port) as server:
        app.catalog.model()  # an unmigrated database ends the command here
        app.warm_soon()
        note(f"The API answers on {server.address}; {server.address}/docs describes it.")
        server.run()
