"""Reads bodies that FastAPI does not: forms with files, and one address with two content types."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile

from app.api.problems import InvalidRequest, MediaTypeRefused

M = TypeVar("M", bound=BaseModel)

FORM = "multipart/form-data"
JSON = "application/json"
ROWS = "application/x-ndjson"

MAX_FILES = 100


@dataclass(slots=True)
class FormData:
    """The files (name and bytes, in order) and the texts of a form, by the name of their field."""

    files: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


def content_type(request: Request, *known: str) -> str:
    """Which of the `known` content types the body has. Raises MediaTypeRefused."""
    named = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if named not in known:
        raise MediaTypeRefused(
            f"The body has the content type {named[:100] or 'none'}; send {' or '.join(known)}."
        )
    return named


async def read_form(
    request: Request, *, files: Collection[str], texts: Collection[str]
) -> FormData:
    """The form in the body, with these fields only. Raises InvalidRequest."""
    try:
        async with request.form(max_files=MAX_FILES, max_fields=MAX_FILES) as form:
            return await _fields(form.multi_items(), files, texts)
    except FormParserError as exc:  # older versions of Starlette let it through
        raise InvalidRequest(f"The form cannot be read: {exc}.") from exc


async def _fields(
    items: Iterable[tuple[str, UploadFile | str]], files: Collection[str], texts: Collection[str]
) -> FormData:
    read = FormData()
    for name, value in items:
        if isinstance(value, UploadFile) and name in files:
            data = await value.read()
            read.files.setdefault(name, []).append((value.filename or "", data))
        elif isinstance(value, str) and name in texts and name not in read.texts:
            read.texts[name] = value
        else:
            raise InvalidRequest(
                f"The form has a field {name[:100]!r} too many; it takes the files "
                f"{', '.join(files)} and the texts {', '.join(texts) or 'none'}."
            )
    return read


def one_file(form: FormData, name: str) -> bytes:
    """The bytes of the one file of this name. Raises InvalidRequest."""
    files = form.files.get(name, [])
    if len(files) != 1:
        raise InvalidRequest(f"The form needs one file {name!r}; it has {len(files)}.")
    return files[0][1]


def parse_json(model: type[M], document: str | bytes, at: str = "body") -> M:
    """A JSON document as a model. Raises RequestValidationError with what is wrong where."""
    try:
        return model.model_validate_json(document)
    except ValidationError as exc:
        found: list[Any] = exc.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError(
            [{**each, "loc": (at, *each["loc"])} for each in found]
        ) from exc
