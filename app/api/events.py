"""POST /v1/events: what people did with the results of searches, in the names of UBI 1.3.

No field that may hold the address of a person is stored. See docs/decisions/0047-events.md.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from app.api import answers, forms
from app.api.answers import EventsAnswer
from app.api.problems import EventsOff, KeyMissing
from app.api.rate_limits import Rates
from app.api.requests import Strict
from app.bootstrap import App
from app.operations.api_keys import ApiKey
from app.operations.search_events import EventRow

MAX_EVENTS = 100
"""Events of a request."""

EMAIL = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+")

PORT = re.compile(r"(?<=[\d\]]):\d{1,5}$")

NO_NUL = r"^[^\u0000]*$"

DROPPED = ("user_id", "message", "message_type")
"""Members of an event that are read and not stored: they may tell who a person is."""

EVENTS_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/EventBatch"}}},
    }
}


def _without_address(value: str) -> str:
    """Refuse a text that holds the address of a person or of their machine."""
    if EMAIL.search(value) or any(map(_is_ip_address, re.split(r"\s*[,;]\s*", value))):
        message = "it holds an e-mail or IP address; send an id that does not tell who it is"
        raise ValueError(message)
    return value


def _is_ip_address(text: str) -> bool:
    """Whether a text is an IP address, perhaps in brackets or with a port."""
    for each in (text, PORT.sub("", text)):
        with suppress(ValueError):
            return bool(ip_address(each.strip("[]")))
    return False


def _in_utc(moment: datetime) -> datetime:
    """A time in UTC: PostgreSQL takes offsets below 16 hours only. Without an offset it is UTC."""
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("in UTC it lies outside the years 1 to 9999") from None


Identifier = Annotated[
    str, Field(min_length=1, max_length=100, pattern=NO_NUL), AfterValidator(_without_address)
]
Unread = Annotated[str, Field(max_length=1024)]


class Open(BaseModel):
    """A JSON object that may have members beside these, which are not stored."""

    model_config = ConfigDict(extra="ignore", strict=True)


class EventObject(Open):
    """The product that the event is about."""

    object_id: (
        Annotated[str, Field(min_length=1, max_length=500, pattern=NO_NUL)]
        | Annotated[int, Field(ge=-(2**63), lt=2**63)]
    ) = Field(description="its sku")
    object_id_field: str | None = Field(
        default=None, pattern="^sku$", description="sku, if it is named at all"
    )


class EventPosition(Open):
    """Where the product was."""

    ordinal: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        default=None, description="its place among the results, from 1"
    )


class EventAttributes(Open):
    """The product, and where it was."""

    object: EventObject | None = None
    position: EventPosition | None = None


class Event(Strict):
    """An event of User Behavior Insights 1.3. `user_id`, `message` and `message_type` are accepted
    and not stored, and so are attributes that are not described here."""

    action_name: Identifier = Field(
        description="impression, click, add_to_cart, purchase, or a name of your own"
    )
    query_id: Identifier = Field(description="the query_id of the answer that showed the product")
    client_id: Identifier | None = Field(
        default=None, description="a random id of the browser or program"
    )
    session_id: Identifier | None = Field(default=None, description="a random id of the visit")
    application: Identifier | None = Field(default=None, description="the program or page")
    timestamp: Annotated[datetime, AfterValidator(_in_utc)] | None = Field(
        default=None, description="when it happened, in ISO 8601; without an offset: UTC"
    )
    event_attributes: EventAttributes = EventAttributes()
    user_id: Unread | None = None
    message: Unread | None = None
    message_type: Unread | None = None

    @model_validator(mode="after")
    def _names_a_product(self) -> Event:
        if self.action_name in ("impression", "click", "purchase") and self._sku is None:
            raise ValueError(
                f"a {self.action_name} needs the sku, in event_attributes.object.object_id"
            )
        return self

    @property
    def _sku(self) -> str | None:
        named = self.event_attributes.object
        return None if named is None else str(named.object_id)

    def row(self) -> EventRow:
        """What is stored of the event."""
        position = self.event_attributes.position
        return EventRow(
            self.query_id, self.action_name, self._sku, None if position is None else
            position.ordinal, self.client_id, self.session_id, self.application,
            self.timestamp,
        )  # fmt: skip


class EventBatch(Strict):
    """Events, which are stored together or not at all."""

    events: Annotated[list[Event], Field(min_length=1, max_length=MAX_EVENTS)]


def router(app: App) -> APIRouter:
    """The endpoint of events."""
    routes = APIRouter(prefix="/v1", tags=["events"])
    rates = Rates(at_least=MAX_EVENTS)

    @routes.post("/events", response_model=EventsAnswer, openapi_extra=EVENTS_BODY)
    async def events(request: Request) -> Response:
        """Store up to 100 impressions, clicks and purchases of products that answers showed."""
        forms.content_type(request, forms.JSON)
        body, key = await request.body(), request.scope.get("api_key")
        return await run_in_threadpool(store, body, key)

    def store(body: bytes, key: ApiKey | None) -> Response:
        if key is None:
            raise KeyMissing("Events need a key, also on this machine; any scope will do.")
        if not app.events.enabled:
            raise EventsOff()
        posted = forms.parse_json(EventBatch, body).events
        rates.take(key.id, app.settings.events_per_s, len(posted))
        app.events.store([event.row() for event in posted])
        sent = {name for event in posted for name in event.model_fields_set}
        document: dict[str, Any] = {
            "stored": len(posted), "dropped": [name for name in DROPPED if name in sent],
        }  # fmt: skip
        return Response(answers.encode(document), media_type=answers.JSON)

    return routes
