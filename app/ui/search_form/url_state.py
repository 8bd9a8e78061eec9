"""The search form as query parameters of the URL, so that links and reloads keep it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, get_args

from app.db.text import check_text
from app.errors import BadInput
from app.search.filters import parse
from app.ui.engine_texts import engine_text
from app.ui.search_form.state import (
    DEFAULT,
    MAX_PAGE,
    PAGE_SIZES,
    PercentBox,
    SearchFormState,
    Sorting,
    TextReader,
    number_text,
    range_text,
)
from app.ui.translation import _


def from_url(
    parameters: Mapping[str, Sequence[str]],
) -> tuple[SearchFormState, tuple[str, ...]]:
    """The form from query parameters (values by name), and a sentence for each invalid one.

    Invalid parameters are left out, unknown ones ignored.
    """
    values: dict[str, Any] = {}
    errors = []
    for name, texts in parameters.items():
        parameter = PARAMETERS.get(name)
        try:
            if parameter is not None and texts:
                values |= zip(parameter.fields, parameter.read(texts), strict=True)
        except BadInput as exc:
            text = _("A part of the address of this page was left out.")
            errors.append(f"{text} {engine_text(str(exc))}")
    return _consistent(replace(DEFAULT, **values)), tuple(errors)


def _consistent(form: SearchFormState) -> SearchFormState:
    """The form with one reference at most, and a box only in a photo."""
    given = [name for name in ("photo", "shared", "link", "sku") if getattr(form, name)]
    others: dict[str, Any] = dict.fromkeys(given[1:], "")
    form = replace(form, **others)
    return form if given and given[0] != "sku" else replace(form, box=None)


def to_url(form: SearchFormState) -> dict[str, list[str]]:
    """The query parameters of the form, of which `from_url` makes it again; defaults are omitted.

    A photo does not fit in a URL; its id is for the session that keeps it, unless it is shared.
    """
    parameters = {}
    for name, parameter in PARAMETERS.items():
        values = [getattr(form, field) for field in parameter.fields]
        if values != [getattr(DEFAULT, field) for field in parameter.fields]:
            parameters[name] = parameter.write(*values)
    return parameters


@dataclass(frozen=True, slots=True)
class UrlParameter:
    """A query parameter: the form fields it sets, and how its values are read and written."""

    fields: tuple[str, ...]
    read: Callable[[Sequence[str]], Sequence[Any]]
    write: Callable[..., list[str]]


def _read_text(texts: Sequence[str]) -> list[str]:
    check_text("text", texts[-1])
    return [texts[-1].strip()]


def _read_set(texts: Sequence[str]) -> list[tuple[str, ...]]:
    for text in texts:
        check_text("value", text)
    return [tuple(dict.fromkeys(filter(None, texts)))]


def _read_conditions(texts: Sequence[str]) -> list[tuple[str, ...]]:
    for text in filter(None, texts):
        conditions = parse([text])
        if conditions.at_least or conditions.at_most:
            message = _("The attribute {value} is a range there; it has one value.")
            raise BadInput(message.format(value=repr(text)))
    return _read_set(texts)


def _read_number(name: str, low: float, high: float, texts: Sequence[str]) -> list[float]:
    try:
        number = float(texts[-1])
    except ValueError:
        number = low - 1
    if not low <= number <= high:  # false for NaN, too
        text = _("{name} is {value} there; it is a number from {low} to {high}.")
        raise BadInput(text.format(name=name, value=repr(texts[-1]), low=low, high=high))
    return [number]


def _read_choice(name: str, choices: Mapping[str, Any], texts: Sequence[str]) -> list[Any]:
    if texts[-1] not in choices:
        text = _("{name} is {value} there; it is one of {values}.")
        values = ", ".join(choices)
        raise BadInput(text.format(name=name, value=repr(texts[-1]), values=values))
    return [choices[texts[-1]]]


def _read_range(name: str, texts: Sequence[str]) -> list[Any]:
    """Both bounds from `2019..2023`, `2019..`, `..2023`, or from one number."""
    text = texts[-1] if ".." in texts[-1] else f"{texts[-1]}..{texts[-1]}"
    filters = parse([f"{name}={text}"])
    bounds = (filters.at_least.get(name), filters.at_most.get(name))
    return [bound if bound is None or name == "year" else float(bound) for bound in bounds]


def _read_box(texts: Sequence[str]) -> list[PercentBox]:
    try:
        left, top, right, bottom = map(int, texts[-1].split(","))
    except ValueError:
        left = top = right = bottom = 0
    if not (0 <= left < right <= 100 and 0 <= top < bottom <= 100):
        text = _(
            "box is {value} there; it is the left, top, right and bottom edge in percent, as in "
            "10,0,60,100."
        )
        raise BadInput(text.format(value=repr(texts[-1])))
    return [(left, top, right, bottom)]


def _write_box(box: PercentBox) -> list[str]:
    return [",".join(map(str, box))]


def _read_page(texts: Sequence[str]) -> list[int]:
    return [int(_read_number("page", 1, MAX_PAGE, texts)[0])]


def _write_one(value: object) -> list[str]:
    return [str(value)]


def _text(field: str) -> UrlParameter:
    return UrlParameter((field,), _read_text, _write_one)


def _set(field: str) -> UrlParameter:
    return UrlParameter((field,), _read_set, list)


def _number(field: str, name: str, low: float, high: float) -> UrlParameter:
    read = partial(_read_number, name, low, high)
    return UrlParameter((field,), read, lambda value: [number_text(value)])


def _choice(name: str, choices: Mapping[str, Any]) -> UrlParameter:
    texts = {value: text for text, value in choices.items()}
    return UrlParameter((name,), partial(_read_choice, name, choices), lambda value: [texts[value]])


def _range(name: str) -> UrlParameter:
    fields = (f"{name}_from", f"{name}_to")
    return UrlParameter(
        fields, partial(_read_range, name), lambda low, high: [range_text(low, high)]
    )


PARAMETERS = {
    "photo": _text("photo"),
    "shared": _text("shared"),
    "image": _text("link"),
    "sku": _text("sku"),
    "box": UrlParameter(("box",), _read_box, _write_box),
    "text": _text("words"),
    "weight": _number("weight", "weight", 0, 1),
    "reader": _choice("reader", {name: name for name in get_args(TextReader)}),
    "not": _text("without"),
    "brand": _set("brand"),
    "category": _set("category"),
    "colour": _set("colour"),
    "attribute": UrlParameter(("attributes",), _read_conditions, list),
    "year": _range("year"),
    "price": _range("price"),
    "min": _number("min_similarity", "min", -1, 1),
    "near": _number("near_match", "near", 0, 2),
    "fold": _choice("fold", {"1": True, "0": False}),
    "k": _choice("k", {str(size): size for size in PAGE_SIZES}),
    "sort": _choice("sort", {name: name for name in get_args(Sorting)}),
    "page": UrlParameter(("page",), _read_page, _write_one),
}
"""All query parameters, by name, in the order of the URL."""
