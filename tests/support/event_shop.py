"""A served catalogue whose searches are recorded, and events that are posted to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

from app.bootstrap import App
from support.api_client import ApiClient, ApiResponse


@dataclass(frozen=True)
class Shop:
    """A served catalogue, and a client with a key that records queries."""

    app: App
    client: ApiClient
    sql: psycopg.Connection

    def rows(self, query: str) -> list[Any]:
        return self.sql.execute(query).fetchall()  # type: ignore[arg-type]

    def written(self) -> None:
        """Write the searches that are queued."""
        self.app.events._queue.flush()


def event(action: str, query_id: str, sku: str | int | None, **more: object) -> dict[str, object]:
    attributes = {} if sku is None else {"event_attributes": {"object": {"object_id": sku}}}
    return {"action_name": action, "query_id": query_id, **attributes, **more}


def post(client: ApiClient, *events: dict[str, object]) -> ApiResponse:
    return client.post("/v1/events", {"events": events})


def kind(response: ApiResponse) -> str:
    return str(response.json()["type"].rpartition(":")[2])
