"""The languages of the pages: gettext catalogues in `locales`, and which one a visitor gets.

Without Streamlit, so that the command line can read it.
"""

from __future__ import annotations

import gettext
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from app.errors import BadInput

LOCALES = Path(__file__).with_name("locales")
"""A folder for each language but English, with `LC_MESSAGES/lookalike.po` and `.mo`."""

DOMAIN = "lookalike"

ENGLISH = "en"

PARAMETER = "lang"
"""Query parameter of the URL that names a language."""

ACCEPTED = re.compile(
    r"\s*(?P<name>[a-z]+)([-_][a-z0-9_-]*)?\s*(;\s*q\s*=\s*(?P<weight>[0-9](\.[0-9]*)?)\s*)?"
)
"""A part of an `Accept-Language` header, in small letters (RFC 9110, section 12.5.4)."""

COOKIE = "lookalike-language"
"""Cookie of the language that a visitor chose, which `page_head.js` writes."""


@cache
def languages() -> tuple[str, ...]:
    """The languages that there is a catalogue for, English first."""
    others = (file.parent.parent.name for file in LOCALES.glob(f"*/LC_MESSAGES/{DOMAIN}.mo"))
    return (ENGLISH, *sorted(others))


def check_language(setting: str) -> None:
    """Raise BadInput for a setting that is neither `auto` nor one of the languages."""
    if setting not in ("auto", *languages()):
        raise BadInput(
            f"LOOKALIKE_PAGE_LANGUAGE is {setting!r}; give auto or one of {', '.join(languages())}."
        )


def preferred(header: str) -> str:
    """The language for an `Accept-Language` header, or the locale of a browser such as `de-AT`.

    A part that is malformed, or has the weight 0, is not wanted.
    """
    parts = map(ACCEPTED.fullmatch, header.lower().split(","))
    weights = [(float(part["weight"] or 1), part["name"]) for part in parts if part]
    wanted = sorted((each for each in weights if each[0]), key=lambda each: -each[0])
    return next((name for _, name in wanted if name in languages()), ENGLISH)


def page_language(
    header: str, parameters: Mapping[str, str], cookies: Mapping[str, str], setting: str
) -> str:
    """The language of a page that is opened: of its address, else the one that the visitor chose
    before, else of the setting, else of the browser, by its `Accept-Language` header."""
    named = (parameters.get(PARAMETER, ""), cookies.get(COOKIE, ""), setting)
    return next((name for name in named if name in languages()), "") or preferred(header)


@cache
def catalogue(language: str) -> gettext.NullTranslations:
    """The messages of a language; those of English are the code's own."""
    if language == ENGLISH:
        return gettext.NullTranslations()
    return gettext.translation(DOMAIN, LOCALES, [language])


def N_(message: str) -> str:
    """A message that is translated where it is drawn."""
    return message
