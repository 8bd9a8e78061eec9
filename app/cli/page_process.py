"""The process of `lookalike page`: serves the pages, their metrics and health from its start on,
and answers `lookalike search`."""

from __future__ import annotations

from app.cli.search_listener import SearchListener
from app.ui import server
from app.ui.shared import prepare

if __name__ == "__main__":
    with SearchListener(prepare()):
        server.run()
