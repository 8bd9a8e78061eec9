"""Prints the OpenAPI document, without a database: `python -m app.api.openapi`."""

from __future__ import annotations

import json

from app.api.application import endpoints
from app.bootstrap import App
from app.config import Settings


def document() -> str:
    """The document as it is committed in `docs/`."""
    settings = Settings(database_url="postgresql://nobody@localhost/nowhere")
    with App(settings) as app:
        return json.dumps(endpoints(app).openapi(), indent=1, ensure_ascii=False)


if __name__ == "__main__":
    print(document())
