"""`lookalike api`: serve the HTTP API."""

from __future__ import annotations

from contextlib import suppress

import click

from app.api.processes import SHARING, ApiProcesses, stop_with_parent, tell_listening
from app.cli.ending import AtOnce
from app.cli.output import note


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8502, show_default=True, type=click.IntRange(0, 65535),
    help="TCP port; 0 for any free one.",
)  # fmt: skip
@click.option(
    "--processes", default=1, show_default=True, type=click.IntRange(1, 256),
    help="Processes that share the port, each with an index and places of its own (Linux).",
)  # fmt: skip
@click.option(SHARING, is_flag=True, hidden=True, help="Be one of several processes.")
def api(host: str, port: int, processes: int, sharing: bool) -> AtOnce:
    """Serve the HTTP API until Ctrl-C.

    On a loopback address, requests from this machine may read without a key as long as none was
    created. Elsewhere every request needs a key.
    """
    from app.bootstrap import App

    if processes > 1:
        with App() as app, ApiProcesses(host, port, processes) as server:
            app.catalog.model()  # an unmigrated database ends the command here
            with suppress(KeyboardInterrupt):  # the ordinary end of a server
                server.run(lambda: _announce(server.address))
        return AtOnce()

    from app.api.server import ApiServer
    from app.cli.search_listener import SearchListener

    with App() as app, ApiServer(app, host, port, shared=sharing) as server, SearchListener(app):
        app.catalog.model()
        app.warm_soon()
        if sharing:
            stop_with_parent(server)
            tell_listening()
        else:
            _announce(server.address)
        with suppress(KeyboardInterrupt):
            server.run()
    return AtOnce()


def _announce(address: str) -> None:
    note(f"The API answers on {address}; {address}/docs describes it.")
