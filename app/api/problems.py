"""Errors as problem details (RFC 9457): one stable `type` for each class of error.

Only messages about the request itself are sent. Errors of the installation are logged, and their
class is described: their messages may name hosts, files or users.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from inspect import cleandoc
from typing import Any

from app import errors
from app.errors import LookalikeError
from app.search.service import ActiveModelChanged

TYPE_PREFIX = "urn:lookalike:problem:"

CONTENT_TYPE = "application/problem+json"

RETRY_S = 2
"""Seconds after which a request that met no free place may be sent again."""

_log = logging.getLogger("lookalike.api")


class ApiError(LookalikeError):
    """The request cannot be answered."""

    def __init__(
        self, message: str | None = None, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.headers = headers or {}


class InvalidRequest(ApiError):
    """The request is not as the API describes it; see /openapi.json."""


class BadCursor(ApiError):
    """The cursor belongs to another search, or was changed; search again without it."""


class KeyMissing(ApiError):
    """Send a key of `lookalike key create` as `Authorization: Bearer lk_…`."""


class KeyRefused(ApiError):
    """The key is not valid: it is mistyped, expired or revoked."""


class ScopeMissing(ApiError):
    """The key does not allow this request; create one with a larger scope."""


class OriginRefused(ApiError):
    """Pages of this origin may not use the key; name it in `lookalike key create --origin`."""


class RateExceeded(ApiError):
    """The key allows fewer requests a second; wait, and send this one again."""


class EventsOff(ApiError):
    """This server keeps no events: its LOOKALIKE_EVENT_DAYS is 0."""


class BodyTooLarge(ApiError):
    """The body of the request is too large."""


class BodyTimeout(ApiError):
    """The body of the request did not arrive in time; send it again."""


class MediaTypeRefused(ApiError):
    """The body has a content type that this address does not read."""


class AddressUnknown(ApiError):
    """There is nothing at this address; /openapi.json lists the addresses."""


class MethodRefused(ApiError):
    """This address does not answer this method; /openapi.json lists the methods."""


STATUS: Mapping[type[LookalikeError], int] = {
    InvalidRequest: 422,
    BadCursor: 422,
    KeyMissing: 401,
    KeyRefused: 401,
    ScopeMissing: 403,
    OriginRefused: 403,
    RateExceeded: 429,
    EventsOff: 403,
    BodyTooLarge: 413,
    BodyTimeout: 408,
    MediaTypeRefused: 415,
    AddressUnknown: 404,
    MethodRefused: 405,
    ApiError: 400,
    errors.UnknownProduct: 404,
    errors.UnknownPhoto: 404,
    errors.UnknownPicture: 404,
    errors.UnknownModel: 404,
    errors.UnknownKey: 404,
    errors.BadImage: 422,
    errors.NoWords: 422,
    errors.BadSource: 422,
    errors.BadInput: 422,
    errors.ModelNotMaintained: 409,
    errors.Busy: 503,
    ActiveModelChanged: 503,
    errors.LockHeld: 503,
    errors.ReplicaConflict: 503,
    errors.DatabaseUnavailable: 503,
    errors.DatabaseUnsuitable: 500,
    errors.SchemaMismatch: 503,
    errors.NoModel: 503,
    errors.ModelMismatch: 503,
    errors.NotReady: 503,
    errors.ModelUnavailable: 503,
    errors.NoRegions: 500,
    errors.BuildRefused: 500,
    errors.BuildRunning: 503,
    errors.IndexUnwritable: 500,
    errors.IndexUnreadable: 500,
    errors.IndexDamaged: 500,
    errors.UnsupportedPlatform: 500,
    LookalikeError: 500,
}
"""The HTTP status of each class of error; a class without one has that of its base."""

SHOWN = (ApiError, errors.BadInput, errors.Busy, errors.ModelNotMaintained, ActiveModelChanged)
"""Errors whose message is about the request."""

RETRIED = {
    errors.Busy, ActiveModelChanged, errors.LockHeld, errors.ReplicaConflict,
    errors.DatabaseUnavailable,
}  # fmt: skip
"""Errors after which the same request may succeed in a moment."""

INTERNAL = "This is an error of Lookalike itself; it was logged."


def known_class(error: type[LookalikeError]) -> type[LookalikeError]:
    """The nearest class of an error that has a status."""
    return next(each for each in error.__mro__ if each in STATUS)


def problem_type(error: type[LookalikeError]) -> str:
    """The `type` of an error: the name of its class in lower case with hyphens."""
    known = known_class(error)
    if known is LookalikeError:
        return f"{TYPE_PREFIX}internal-error"
    words = re.findall(r"[A-Z][a-z]*", known.__name__)
    return TYPE_PREFIX + "-".join(words).lower()


def problem(error: LookalikeError) -> dict[str, Any]:
    """The members of the problem document of an error."""
    known = known_class(type(error))
    detail = str(error)
    if not isinstance(error, SHOWN):
        _log.warning("%s: %s", known.__name__, error)
        detail = INTERNAL if known is LookalikeError else cleandoc(known.__doc__ or "")
    return {
        "type": problem_type(type(error)),
        "title": _title(known),
        "status": STATUS[known],
        "detail": detail,
    }


def internal_problem() -> dict[str, Any]:
    """The problem document of an error that is a bug, which the caller logs."""
    return {
        "type": problem_type(LookalikeError),
        "title": _title(LookalikeError),
        "status": 500,
        "detail": INTERNAL,
    }


def invalid_request(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The problem document of a request that does not fit its description: `errors` says what is
    wrong where, without repeating the values."""
    named = [
        {
            "at": ".".join(str(part) for part in each["loc"]),
            "message": _message(each),
        }
        for each in found
    ]
    told = "; ".join(f"{each['at']}: {each['message']}" for each in named[:3])
    told += "" if told.endswith("?") else "."
    body = problem(InvalidRequest(f"The request is not as described in /openapi.json: {told}"))
    return body | {"errors": named[:20]}


def _message(found: Mapping[str, Any]) -> str:
    """What is wrong with one field, as a person would say it."""
    if found.get("type") == "extra_forbidden":
        return "There is no such field here; is it mistyped?"
    return str(found["msg"]).removeprefix("Value error, ")


def headers_of(error: LookalikeError) -> dict[str, str]:
    """Headers that go with the answer to an error."""
    headers = dict(getattr(error, "headers", {}))
    if known_class(type(error)) in RETRIED:
        headers.setdefault("Retry-After", str(RETRY_S))
    if isinstance(error, KeyMissing | KeyRefused):
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def encoded(document: Mapping[str, Any]) -> bytes:
    """A problem document as JSON in UTF-8; lone surrogates of the request are escaped."""
    text = json.dumps(document, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace")


def _title(error: type[LookalikeError]) -> str:
    if error is LookalikeError:
        return "Internal error"
    words = re.findall(r"[A-Z][a-z]*", error.__name__)
    return " ".join([words[0], *(word.lower() for word in words[1:])])
