"""What the engine says, in the language of the session: its codes and rules, and its sentences.

The engine speaks English, as the command line and the HTTP API do. Where a result has codes and
counts, they are worded here and in `shortfall_text`. Errors and advice come as sentences: each of
SENTENCES, and of RULES, is one of them, with a name in braces for what differs. A sentence that is
not among them is shown in English.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from app.types import Dropped, Match, Plan, SynonymUsed, UnknownValue, WordsReading
from app.ui.formatting import format_count, format_decimal, format_number
from app.ui.languages import ENGLISH
from app.ui.translation import N_, _, joined, language

RULES = (
    # Rules by which products are one, and what that rests on.
    N_("same words"),
    N_("another year"),
    N_("another size"),
    N_("typo"),
    N_("words and pictures"),
    N_("words, no picture to compare"),
    N_("verdict"),
    N_("gtin"),
    N_("mpn"),
    N_("item group"),
    # Why a product was dropped.
    N_("the same photo as the query"),
    N_("looks the same as a better match"),
    N_("has a word that was excluded"),
    N_("the same product as one shown before"),
    # Similarity labels.
    N_("same photo"),
    N_("same product"),
    N_("similar"),
    # Kinds of files that are refused.
    N_("a PDF document"),
    N_("a PostScript drawing"),
    N_("a Photoshop file"),
    N_("a JPEG 2000 file"),
    N_("a JPEG XL file"),
    N_("an icon"),
    N_("a ZIP archive or an office document"),
    N_("a compressed archive"),
    N_("an SVG drawing"),
    N_("HEIC, AVIF or video"),
    # What read the words of a query.
    N_("model"),
    N_("catalogue"),
    N_("model and catalogue"),
    # Why the path that answered was taken.
    N_("no index has been built yet"),
    N_("the words of the catalogue"),
    N_("the filter leaves few products, all compared"),
    # States of builds and of runs.
    N_("building"),
    N_("published"),
    N_("rejected"),
    N_("retired"),
    N_("running"),
    N_("finished"),
    N_("failed"),
    # Steps of a rebuild.
    N_("Reading all embeddings"),
    N_("Writing the index file"),
    # Values of health checks.
    N_("being built"),
    N_("reachable"),
    N_("not calibrated, and nothing is claimed"),
)
"""Names and short texts of the engine that stand alone or in a sentence."""

SENTENCES = (
    # Files that are no pictures.
    N_("This is not a picture that can be read; save it as JPEG, PNG or WebP and try again."),
    N_("This is {rule}, which cannot be read; save it as JPEG, PNG or WebP."),
    N_("This is a web page, not a picture; save the picture itself and try again."),
    N_("The {rule} file is cut off, its end is missing; copy or upload it again."),
    N_("The {rule} file is damaged or of a rare kind; save it again as JPEG, PNG or WebP."),
    N_("The file is empty; export or upload the picture again."),
    N_("The file has {number} MB and at most {number_2} MB are allowed; save the picture smaller, "
       "or as JPEG, and try again."),
    N_("The picture has {width} x {height} pixels ({number} megapixels) and at most {number_2} "
       "megapixels are allowed; make it smaller."),
    N_("The picture has far more pixels than the {number} megapixels allowed; make it smaller."),
    N_("The picture needs too much memory to open; make it smaller and try again."),
    N_("The animation has {number} frames and at most {number_2} are allowed; send one picture of "
       "it."),
    N_("The picture took longer than {number} s to open; make it smaller or save it again as "
       "JPEG."),
    N_("The picture could not be decoded safely; save it again as JPEG or PNG and try again."),
    N_("This photo is no longer kept here, because many others came since. Upload it again."),
    # Addresses of pictures.
    N_("This is no valid web address; copy it again."),
    N_("A web address must begin with http:// or https://; copy the whole address of the "
       "picture."),
    N_("This web address contains a user name or a password, which are not sent. Download the "
       "picture and upload its file."),
    N_("This web address has no host or no valid port; copy it again."),
    N_("The host in this web address is not valid; copy it again."),
    N_("A web address contains no spaces, backslashes or control characters; copy it again, with "
       "%20 for a space."),
    N_("This web address redirects to something that is none; open it in a browser."),
    N_("This web address was redirected more than {number} times. Open it in a browser and copy "
       "the address of the picture itself."),
    N_("Pictures are downloaded from port {ports} only; the operator may name others in "
       "LOOKALIKE_LINK_PORTS. Download the picture and upload its file."),
    N_("{host} took longer than {number} seconds; try again, or download the picture and upload "
       "its file."),
    N_("{host} has no valid TLS certificate; download the picture and upload its file."),
    N_("{host} cannot be read from: {reason}; download the picture and upload its file."),
    N_("{host} answered with status {status} instead of a picture. Check in a browser that the "
       "address is right."),
    N_("{host} answered with a web page, not a picture; copy the address of the picture itself."),
    N_("{host} sends more than the {number} bytes that are allowed. Make the file smaller and "
       "upload it."),
    N_("{host} broke off the connection; try again."),
    # Too much at a time.
    N_("Too many searches at a time: {number} are running, and this one waited {number_2} s for "
       "its turn and was not begun. Try again in a moment."),
    N_("Too many pictures at a time: {number} are being opened, and this one waited {number_2} s "
       "for its turn. Try again in a moment."),
    N_("All connections of this process to PostgreSQL are busy. Try again in a moment."),
    # What is asked.
    N_("No product has the sku {sku}."),
    N_("The product {sku} has no picture with an embedding under {model}; ingest it again with a "
       "picture."),
    N_("The text has {number} characters; use at most {number_2}."),
    N_("The range {range} of {column} ends before it begins; swap its ends."),
    N_("The region {region} is not part of a picture: give left, top, right and bottom as shares "
       "between 0 and 1, at least {least} apart, with a picture."),
    N_("Words that are looked up in the catalogue only have no picture to compare with: leave out "
       "what it should not be like, the distance to the query and the minimum similarity, or add "
       "a picture or a sku."),
    N_("The active model is now {model}. Try again."),
    # The database.
    N_("This database is empty. Run `lookalike init` first."),
    N_("No model is recorded in this database; run `lookalike init`."),
    N_("PostgreSQL cannot be reached; check LOOKALIKE_DATABASE_URL and that the server runs."),
    N_("Another session holds a lock for too long; try again in a moment."),
    N_("The replica ended this search because it delayed changes of the primary; try again."),
    # Verdicts.
    N_("Nothing was recorded: no product has the sku {skus}."),
    # What was not compared.
    N_("typing errors were not looked for in all titles, because too many are alike"),
    # How a search went.
    N_("build {build} with {number} embeddings changed since"),
    N_("build {build} searched deeper, then filtered, {number} embeddings changed since"),
    N_("build {build} searched among what passes, {number} embeddings changed since"),
    N_("more than {number} embeddings changed since build {build}"),
    # Health checks, and a rebuild.
    N_("Building an index of {number} pictures and measuring its recall"),
    N_("No model is recorded; run `lookalike init`."),
    N_("No index is built; pgvector answers. Run `lookalike index rebuild`."),
    N_("More than {number} embeddings changed; run `lookalike index rebuild`."),
    N_("{number} pictures have no embedding under {model}; ingest them again."),
    N_(
        "{number} of the newest {number_2} pictures have no embedding under {model}; ingest them "
        "again."
    ),
    N_("about {number}"),
    N_("none, as for all below {number} embeddings"),
    N_("not calibrated: from a similarity of {number} on, as shipped"),
    N_("calibrated: from a similarity of {number} on"),
    N_("Run `lookalike calibrate` to fit to this catalogue when a photo has no close match."),
    N_("{model}, {number} dimensions"),
    N_("{build}: {kind}, {number} rows, recall@10 {number_2}"),
    N_("{build}: {kind}, {number} rows"),
)  # fmt: skip

NUMBER = re.compile(r"-?[0-9][0-9,]{0,20}(?:\.[0-9]{1,9})?")

PLACE = re.compile(r"\{(\w+)\}")
"""What stands in a sentence: a `rule` and a `column` are translated, a `number` is written
anew, and else it is kept."""


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
    if name == "column":
        return column_title(text)
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
    ignored, or also searched by synonyms, and what was not compared."""
    reading = plan.reading or WordsReading("")
    sentences = [_unknown_text(each) for each in plan.unknown]
    sentences += [
        _("No product has the word {typed}; searched for {read_as}.").format(
            typed=quoted(each.typed), read_as=quoted(each.read_as)
        )
        for each in reading.corrected
    ]
    if reading.ignored:
        words = ", ".join(map(quoted, reading.ignored))
        text = _("Ignored, because no product has it or it is too common: {words}.")
        if "model" in (plan.words or ""):
            text = _(
                "Read by the model alone, because no product has it or it is too common: {words}."
            )
        sentences.append(text.format(words=words))
    sentences += _synonym_texts(reading.synonyms)
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
