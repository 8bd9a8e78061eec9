"""A wish as the query of a web address, to be shared and to survive a reload, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, get_args

from app.db.text import check_text
from app.errors import BadInput
from app.search.filters import parse
from app.ui.search_form.state import DEFAULT, SIZES, SearchFormState, TextReader, number, span


def read(given: Mapping[str, Sequence[str]]) -> tuple[SearchFormState, tuple[str, ...]]:
    """The wish in an address (values by name), and a sentence for all in it that makes no sense.

    What makes no sense is left out, and names of others are passed over.
    """
    found: dict[str, Any] = {}
    complaints = []
    for name, values in given.items():
        part = PARTS.get(name)
        try:
            if part is not None and values:
                found |= zip(part.fields, part.read(values), strict=True)
        except BadInput as exc:
            complaints.append(f"A part of the address of this page was left out. {exc}")
    by = "product" if found.get("sku") else DEFAULT.by
    return replace(DEFAULT, **found, by=by), tuple(complaints)


def write(wish: SearchFormState) -> dict[str, list[str]]:
    """The address that `read` makes this wish of, without what everybody begins with.

    Pictures have no place in an address, and so neither has the way they were given.
    """
    if wish.by != "product":
        wish = replace(wish, sku="")
    found = {}
    for name, part in PARTS.items():
        values = [getattr(wish, field) for field in part.fields]
        if values != [getattr(DEFAULT, field) for field in part.fields]:
            found[name] = part.write(*values)
    return found


@dataclass(frozen=True, slots=True)
class Part:
    """One name of an address: the fields it fills, and how its values are read and written."""

    fields: tuple[str, ...]
    read: Callable[[Sequence[str]], Sequence[Any]]
    write: Callable[..., list[str]]


def _text(values: Sequence[str]) -> list[str]:
    check_text("text", values[-1])
    return [values[-1].strip()]


def _set(values: Sequence[str]) -> list[tuple[str, ...]]:
    for value in values:
        check_text("value", value)
    return [tuple(dict.fromkeys(filter(None, values)))]


def _number(name: str, least: float, most: float, values: Sequence[str]) -> list[float]:
    try:
        found = float(values[-1])
    except ValueError:
        found = least - 1
    if not least <= found <= most:
        raise BadInput(f"{name} is {values[-1]!r} there; it is a number from {least} to {most}.")
    return [found]


def _choice(name: str, choices: Mapping[str, Any], values: Sequence[str]) -> list[Any]:
    if values[-1] not in choices:
        raise BadInput(f"{name} is {values[-1]!r} there; it is one of {', '.join(choices)}.")
    return [choices[values[-1]]]


def _range(name: str, values: Sequence[str]) -> list[Any]:
    """Bounds from `2019..2023`, `2019..`, `..2023`, or one number that is both."""
    said = values[-1] if ".." in values[-1] else f"{values[-1]}..{values[-1]}"
    found = parse([f"{name}={said}"])
    bounds = (found.at_least.get(name), found.at_most.get(name))
    return [bound if bound is None or name == "year" else float(bound) for bound in bounds]


def _one(value: object) -> list[str]:
    return [str(value)]


PARTS = {
    "sku": Part(("sku",), _text, _one),
    "text": Part(("words",), _text, _one),
    "weight": Part(("weight",), partial(_number, "weight", 0, 1), lambda said: [number(said)]),
    "reader": Part(
        ("reader",), partial(_choice, "reader", {name: name for name in get_args(TextReader)}), _one
    ),
    "not": Part(("without",), _text, _one),
    **{name: Part((name,), _set, list) for name in ("brand", "category", "colour")},
    **{
        name: Part(
            (f"{name}_from", f"{name}_to"),
            partial(_range, name),
            lambda low, high: [span(low, high)],
        )
        for name in ("year", "price")
    },
    "min": Part(("min_similarity",), partial(_number, "min", -1, 1), lambda said: [number(said)]),
    "near": Part(("near_match",), partial(_number, "near", 0, 2), lambda said: [number(said)]),
    "fold": Part(
        ("fold",), partial(_choice, "fold", {"1": True, "0": False}), lambda said: [str(int(said))]
    ),
    "k": Part(("k",), partial(_choice, "k", {str(size): size for size in SIZES}), _one),
}
"""What an address can hold, by the name it has there."""
