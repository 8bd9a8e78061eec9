"""What the engine says, in the language of the session: its codes and rules, and its sentences.

The engine speaks English, as the command line and the HTTP API do. Where a result has codes and
counts, they are worded here and in `shortfall_text`. Errors and advice come as sentences, which
`engine_sentences` lists. A sentence that is not among them is shown in English.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from app.types import Dropped, Match, Plan, SynonymUsed, UnknownValue, WordsReading
from app.ui.engine_sentences import RULES, SENTENCES
from app.ui.formatting import format_count, format_decimal, format_number
from app.ui.languages import ENGLISH
from app.ui.translation import N_, _, joined, language

NUMBER = re.compile(r"-?[0-9][0-9,]{0,20}(?:\.[0-9]{1,9})?")

PLACE = re.compile(r"\{(\w+)\}")
"""What stands in a sentence: `rule`, `verdicts`, `column` and the "and" of a `list` are translated,
a `number` is written anew, and else it is kept."""


def engine_text(text: str) -> str:
    """A name or a sentence of the engine in the language of the session; in English, or if it is
    not known here, as it is."""
    if language() == ENGLISH or not text:
        return text
    if text in RULES or text in SENTENCES:
        return _(text)
    first = text[0].lower() + text[1:]
    if first in RULES or first in SENTENCES:
        return _capital(_(first))
    for sentence, pattern in _patterns():
        if match := pattern.fullmatch(text):
            values = {name: _value(name, part) for name, part in match.groupdict().items()}
            return _(sentence).format(**values)
    if "; " in text:  # a reason with another one
        return "; ".join(map(engine_text, text.split("; ")))
    return text


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((text, re.compile(_regex(text), re.DOTALL)) for text in SENTENCES if "{" in text)


def _regex(sentence: str) -> str:
    parts = PLACE.split(sentence)
    parts[::2] = map(re.escape, parts[::2])
    parts[1::2] = [
        f"(?P<{name}>{NUMBER.pattern if name.startswith('number') else '.+?'})"
        for name in parts[1::2]
    ]
    return "".join(parts)


def _value(name: str, text: str) -> str:
    if name == "rule":
        return engine_text(text)
    if name == "verdicts":
        return "; ".join(map(engine_text, text.split("; ")))
    if name == "column":
        return column_title(text)
    if name == "list":
        return joined(re.split(", | and ", text))
    if name.startswith("number"):
        decimals = len(text.partition(".")[2])
        return format_decimal(float(text.replace(",", "")), decimals)
    return text


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def quoted(text: str) -> str:
    """A text in the quotation marks of the language."""
    return _("“{text}”").format(text=text)


def why_dropped(drop: Dropped) -> str:
    """The rule by which a product was dropped, the match it lost to, and the distance."""
    parts = [engine_text(drop.rule), drop.lost_to or ""]
    return ", ".join(filter(None, parts)) + _in_brackets(drop.distance)


def _in_brackets(distance: float | None) -> str:
    return "" if distance is None else f" ({distance_text(distance)})"


def distance_text(distance: float) -> str:
    """A distance between two pictures."""
    return _("distance {distance}").format(distance=format_decimal(distance, 3))


def words_text(plan: Plan) -> str:
    """The sentence that names what searched by the words of the query; empty without words."""
    sentences = {
        "model": _("The words were read by the model."),
        "catalogue": _("The words were read by the catalogue."),
        "model and catalogue": _("The words were read by the model and the catalogue."),
    }
    return "" if plan.words is None else sentences.get(plan.words, "")


def similar_number(match: Match) -> str:
    """How many similar listings a match has, such as "1,000+"."""
    return f"{format_number(match.similar_count)}{'+' if match.similar_more else ''}"


def same_picture_text(match: Match) -> str:
    """How many products show the picture of a match, if these are one match; else empty."""
    if match.same_picture is None:
        return ""
    return _("{count} products show this picture").format(count=format_count(match.same_picture))


def reading_texts(plan: Plan) -> tuple[str, ...]:
    """Sentences that say which values of filters no product has, which words were corrected,
    ignored, also searched by synonyms, or excluded, and what was not compared."""
    reading = plan.reading or WordsReading("")
    sentences = [_unknown_text(each) for each in plan.unknown]
    sentences += [
        _("No product has the word {typed}; searched for {read_as}.").format(
            typed=quoted(each.typed), read_as=quoted(each.read_as)
        )
        for each in reading.corrected
    ]
    if reading.ignored:
        others = [word for word in reading.ignored if word not in reading.unknown]
        words = ", ".join(map(quoted, others))
        text = _("Ignored, because no product has it or it is too common: {words}.")
        if "model" in (plan.words or ""):
            text = _(
                "Read by the model alone, because no product has it or it is too common: {words}."
            )
        sentences += [text.format(words=words)] if words else []
    if reading.unknown:
        words = ", ".join(map(quoted, reading.unknown))
        sentences.append(_("Not understood, and ignored: {words}.").format(words=words))
    sentences += _synonym_texts(reading.synonyms)
    if reading.excluded:
        words = ", ".join(map(quoted, reading.excluded))
        sentences.append(_("Left out: products with {words}.").format(words=words))
    sentences += [f"{_capital(engine_text(text))}." for text in plan.not_tried]
    return tuple(sentences)


def _synonym_texts(synonyms: Sequence[SynonymUsed]) -> list[str]:
    means: dict[str, list[str]] = {}
    for used in synonyms:
        means.setdefault(used.word, []).append(used.means)
    return [
        _("Also searched for {others} instead of {word}.").format(
            others=joined(list(map(quoted, others))), word=quoted(word)
        )
        for word, others in means.items()
    ]


def _unknown_text(unknown: UnknownValue) -> str:
    text = _("No product has {column} {value}.").format(
        column=column_title(unknown.column), value=quoted(unknown.value)
    )
    if not unknown.nearest:
        return text
    nearest = _("Nearest: {values}.").format(values=", ".join(unknown.nearest))
    return f"{text} {nearest}"


COLUMN_TITLES = {
    "brand": N_("Brand"),
    "category": N_("Category"),
    "colour": N_("Colour"),
    "year": N_("Year"),
    "price": N_("Price"),
    "title": N_("Title"),
    "options": N_("Options"),
    "sku": "SKU",
}


def column_title(name: str) -> str:
    """The title of a column of the catalogue, or the name of an attribute as a title."""
    title = COLUMN_TITLES.get(name)
    return name.replace("_", " ").capitalize() if title is None else _(title)
