"""Reads the words of a query by the catalogue's vocabulary: stems, synonyms, skus, corrections."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from app.db.queries import vocabulary
from app.db.queries.full_text import Term, WordQuery
from app.db.queries.vocabulary import VocabularyWord, WordCount
from app.duplicates.typos import spelling_errors
from app.encoders import german_words
from app.encoders.negations import with_minus_signs
from app.encoders.word_space import NEUTRAL, tokens
from app.search import german_spelling
from app.types import Correction, SynonymUsed, WordsReading

EXCLUDED_WORDS = re.compile(r'(?:^|(?<=\s))-(?P<word>"[^"]*"|[^\s"]+)')
"""A word, or a phrase in quotes, after a minus sign."""

PHRASE = re.compile(r'"(?P<phrase>[^"]*)"')

MAX_WORDS = 24
"""Words of a query that are searched; further ones are ignored."""

MAX_CORRECTIONS = 6
"""Unknown words of a query that are corrected; further ones are ignored."""

MAX_NGRAM = 3
"""Words in a row that may be one word of the catalogue, or have a synonym."""

MIN_CORRECTED = 4
MIN_CORRECTED_TWICE = 8
"""Letters from which on a word may have one error, and two."""

MAX_ERRORS = 2
"""Errors of a word that is corrected."""

MIN_BEGINNING = 2
"""Letters from which on the last word may be the beginning of one."""


@dataclass(frozen=True, slots=True)
class ReadWords:
    """The query as the catalogue is asked, and what is told about it."""

    query: WordQuery
    reading: WordsReading


@dataclass(frozen=True, slots=True)
class _Lookup:
    """What the database knows of the words of a query: lexemes by text, counts by lexeme, synonyms
    by phrase."""

    lexemes: Mapping[str, tuple[str, ...]]
    counts: Mapping[str, WordCount]
    synonyms: Mapping[str, tuple[str, ...]]

    def is_known(self, phrase: str) -> bool:
        """Whether products have all the words of a text."""
        lexemes = self.lexemes.get(phrase, ())
        return bool(lexemes) and all(lexeme in self.counts for lexeme in lexemes)

    def products(self, phrase: Sequence[str]) -> int:
        """At most so many products have this phrase of lexemes."""
        return min((self._count(lexeme).products for lexeme in phrase), default=0)

    def kinds(self, phrase: Sequence[str]) -> int:
        """Products that have a lexeme of the phrase in their category or colour."""
        return max((self._count(lexeme).kinds for lexeme in phrase), default=0)

    def brands(self, phrase: Sequence[str]) -> int:
        """Products that have a lexeme of the phrase in their brand."""
        return max((self._count(lexeme).brands for lexeme in phrase), default=0)

    def _count(self, lexeme: str) -> WordCount:
        return self.counts.get(lexeme, WordCount())


def read(connection: Connection, typed: str, *, in_german: bool = False) -> ReadWords:
    """What a typed text asks for, by the vocabulary of this snapshot.

    A word that no product has is the beginning of a word if it is the last, else it is corrected
    to the closest word of the catalogue, else ignored. In a text that is `in_german`, it may be
    corrected to a German name of what products have, and words that products have are searched for
    by their English names too.
    """
    language = vocabulary.language(connection)
    typed = with_minus_signs(typed)
    excluded = [match["word"].strip('"') for match in EXCLUDED_WORDS.finditer(typed)]
    unwanted = list(dict.fromkeys(name for each in excluded for name in (each, *_english(each))))
    wanted = EXCLUDED_WORDS.sub(" ", typed)
    phrases = [match["phrase"] for match in PHRASE.finditer(wanted)]
    plain = wanted.replace('"', " ")
    chunks = vocabulary.split(connection, [*plain.split(), plain, *unwanted, *phrases])
    count = len(plain.split())
    whole, minus = chunks[count], chunks[count + 1 : count + 1 + len(unwanted)]
    codes = vocabulary.codes(connection, {chunk.code for chunk in chunks[: count + 1]} - {""})
    words = tuple(dict.fromkeys(word for chunk in chunks[:count] for word in chunk.words))
    words, dropped = words[:MAX_WORDS], words[MAX_WORDS:]
    coded = {
        word: chunk.code for chunk in chunks[:count] if chunk.code in codes for word in chunk.words
    }
    if whole.code in codes:
        coded = dict.fromkeys(words, whole.code) | coded
    lookup = _look_up(connection, language, words, in_german)
    ends_open = not typed[-1:].isspace()
    corrections, beginnings = _resolve(
        connection, language, words, lookup, coded, ends_open, in_german
    )
    if corrections:
        words = tuple(dict.fromkeys(corrections.get(word, word) for word in words))
        lookup = _look_up(connection, language, words, in_german)
    estimate = vocabulary.product_estimate(connection)
    terms, used, ignored = _terms(words, lookup, coded, beginnings, estimate)
    quoted = vocabulary.lexemes(
        connection, language, [" ".join(each.words) for each in (*minus, *chunks[count + 1 :])]
    )
    terms += [
        Term((lexemes,), rarity=1.0)
        for chunk in chunks[count + 1 + len(unwanted) :]
        if len(lexemes := quoted[" ".join(chunk.words)]) > 1
    ]
    query = WordQuery(
        language,
        tuple(terms),
        whole.code if whole.code in codes else "",
        tuple(filter(None, (quoted[" ".join(chunk.words)] for chunk in minus))),
    )
    corrected = tuple(Correction(*pair) for pair in corrections.items())
    reading = WordsReading(
        language, corrected, used, (*ignored, *dropped), excluded=tuple(unwanted)
    )
    return ReadWords(query, reading)


def asked(typed: str, reading: WordsReading | None) -> str:
    """The words of a typed text that are wanted, in lower case, as the catalogue spells them, and
    German ones in English too."""
    corrected = {each.typed: each.read_as for each in reading.corrected} if reading else {}
    wanted = EXCLUDED_WORDS.sub(" ", with_minus_signs(typed))
    words = [corrected.get(word, word) for word in re.findall(r"\w+", wanted.casefold())]
    return " ".join(name for word in words for name in (word, *_english(word)))


def has_every_word(reading: WordsReading | None) -> bool:
    """Whether the catalogue read every word that says something of a product."""
    return reading is not None and all(word in NEUTRAL for word in reading.ignored)


def _look_up(
    connection: Connection, language: str, words: Sequence[str], in_german: bool
) -> _Lookup:
    """What is known of the words, of words in a row written as one, and of their synonyms.

    A German compound that no product is in English means what its last part does.
    """
    spans = list(_spans(words))
    phrases = {" ".join(span) for span in spans} | {"".join(span) for span in spans}
    synonyms = vocabulary.synonyms(connection, phrases)
    foreign = {word: english for word in words if (english := _english(word))}
    kinds = {word: german_words.general(_plain(word)) for word in foreign}
    both = (*synonyms.values(), *foreign.values(), *kinds.values())
    means = {each for found in both for each in found}
    lexemes = vocabulary.lexemes(connection, language, phrases | means)
    counts = vocabulary.counts(
        connection, language, {lexeme for found in lexemes.values() for lexeme in found}
    )
    lookup = _Lookup(lexemes, counts, synonyms)
    foreign = {
        word: each if any(map(lookup.is_known, each)) else kinds[word]
        for word, each in foreign.items()
    }
    if language != "german" and not in_german:
        # Otherwise the catalogue's own words are not all that is asked for.
        foreign = {word: each for word, each in foreign.items() if not lookup.is_known(word)}
    added = {word: (*synonyms.get(word, ()), *each) for word, each in foreign.items()}
    return replace(lookup, synonyms={**synonyms, **added})


def _english(word: str) -> tuple[str, ...]:
    """What a German word means in English; empty for other words."""
    return german_words.english(_plain(word))


def _plain(word: str) -> str:
    return " ".join(tokens(word))


def _spans(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Up to MAX_NGRAM words in a row."""
    for length in range(1, MAX_NGRAM + 1):
        for first in range(len(words) - length + 1):
            yield tuple(words[first : first + length])


def _resolve(
    connection: Connection,
    language: str,
    words: Sequence[str],
    lookup: _Lookup,
    coded: Collection[str],
    ends_open: bool,
    in_german: bool,
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """For words that no product has: corrections by word, and the lexemes of words that begin with
    the last word, if it may be unfinished (`ends_open`)."""
    corrections: dict[str, str] = {}
    beginnings: dict[str, tuple[str, ...]] = {}
    for number, word in enumerate(words):
        if word in coded or not lookup.lexemes[word] or _alternatives(number, words, lookup):
            continue
        if _synonyms(number, words, lookup):
            continue
        if number == len(words) - 1 and ends_open and len(word) >= MIN_BEGINNING:
            found = vocabulary.beginning_with(connection, language, word)
            if found:
                beginnings[word] = found
                continue
        if len(corrections) < MAX_CORRECTIONS:
            correction = _correct(connection, language, word, lookup.lexemes[word])
            if in_german:
                correction = _german_name(connection, language, word, correction) or correction
            if correction is not None:
                corrections[word] = correction
    return corrections, beginnings


def _correct(
    connection: Connection, language: str, word: str, lexemes: tuple[str, ...]
) -> str | None:
    """The word of the catalogue that is spelt most like this one; None if none is close."""
    if len(word) < MIN_CORRECTED or any(letter.isdigit() for letter in word):
        return None
    most = 2 if len(word) >= MIN_CORRECTED_TWICE else 1
    stem = lexemes[0]
    # One more letter, because the words are compared by their stems too.
    near = vocabulary.spelt_like(connection, language, word, most + 1)
    near += vocabulary.synonyms_spelt_like(connection, language, word, most + 1)
    best = closest(word, stem, near, most)
    if best is None:
        near = vocabulary.spelt_otherwise(connection, language, word, stem, most + 1)
        best = closest(word, stem, near, most)
    return best


def _german_name(connection: Connection, language: str, word: str, other: str | None) -> str | None:
    """The German name that a word is spelt most like, if products have what it means, and the word
    of the catalogue that it is spelt like (`other`) is not nearer."""
    name = german_spelling.nearest_name(word)
    if name is None or (
        other and spelling_errors(word, other, MAX_ERRORS) < spelling_errors(word, name, MAX_ERRORS)
    ):
        return None
    lookup = _look_up(connection, language, (name,), True)
    return name if lookup.is_known(name) or _synonyms(0, (name,), lookup) else None


def closest(word: str, stem: str, candidates: Sequence[VocabularyWord], most: int) -> str | None:
    """The candidate with the fewest errors, at most `most`, then that of most products.

    Errors are letters missing, added, replaced, or swapped with the next (optimal string
    alignment), in the words or in their stems.
    """
    ranked = [(_errors(word, stem, each, most), -each.products, each.word) for each in candidates]
    errors, _, best = min(ranked, default=(most + 1, 0, ""))
    return best if errors <= most else None


def _errors(word: str, stem: str, candidate: VocabularyWord, most: int) -> int:
    spelt = spelling_errors(word, candidate.word, most)
    return min(spelt, spelling_errors(stem, candidate.lexeme, most))


def _alternatives(
    number: int, words: Sequence[str], lookup: _Lookup
) -> tuple[tuple[str, ...], ...]:
    """Lexemes of products for the word in this place: its own, and those of words in a row that
    include it and are one word of the catalogue, as in "long sleeve" for "longsleeve"."""
    joined = ("".join(span) for span in _spans_over(number, words))
    known = (lookup.lexemes[each] for each in joined if lookup.is_known(each))
    return tuple(dict.fromkeys(known))


def _synonyms(number: int, words: Sequence[str], lookup: _Lookup) -> tuple[SynonymUsed, ...]:
    """The synonyms of the word in this place that products have, by itself or with its
    neighbours."""
    found = []
    for span in _spans_over(number, words):
        for phrase in dict.fromkeys((" ".join(span), "".join(span))):
            for means in lookup.synonyms.get(phrase, ()):
                if lookup.is_known(means) and lookup.lexemes[means] != lookup.lexemes[phrase]:
                    found.append(SynonymUsed(phrase, means))
    return tuple(found)


def _spans_over(number: int, words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Up to MAX_NGRAM words in a row that include the one in this place."""
    for length in range(1, MAX_NGRAM + 1):
        for first in range(max(0, number - length + 1), number + 1):
            if first + length <= len(words):
                yield tuple(words[first : first + length])


def _terms(
    words: Sequence[str],
    lookup: _Lookup,
    coded: Mapping[str, str],
    beginnings: Mapping[str, tuple[str, ...]],
    estimate: float,
) -> tuple[list[Term], tuple[SynonymUsed, ...], tuple[str, ...]]:
    """The terms of the words, the synonyms in them, and the words that are ignored."""
    terms: list[Term] = []
    used: list[SynonymUsed] = []
    ignored: list[str] = []
    for number, word in enumerate(words):
        own = _alternatives(number, words, lookup)
        own += tuple((lexeme,) for lexeme in beginnings.get(word, ()))
        synonyms = _synonyms(number, words, lookup)
        near = tuple(dict.fromkeys(lookup.lexemes[each.means] for each in synonyms))
        near = tuple(each for each in near if each not in own)
        if not own and not near and word not in coded:
            ignored.append(word)
            continue
        term = _term(number, words, own, near, lookup, estimate)
        if word in coded:
            term = replace(term, alternatives=(*own, (f"#{coded[word]}",)), is_brand=True)
        terms.append(term)
        used += [each for each in synonyms if lookup.lexemes[each.means] in near]
    return _distinct(terms), tuple(dict.fromkeys(used)), tuple(ignored)


def _term(
    number: int,
    words: Sequence[str],
    own: tuple[tuple[str, ...], ...],
    near: tuple[tuple[str, ...], ...],
    lookup: _Lookup,
    estimate: float,
) -> Term:
    products = sum(map(lookup.products, (*own, *near)))
    # More products than the statistics know: they are older.
    total = max(estimate, *(count.products for count in lookup.counts.values()), 1)
    rarity = math.log(1 + total / max(products, 1))
    in_kinds = max(map(lookup.kinds, own), default=0) > 0
    return Term(own, near, rarity, products, not in_kinds or _beside_brand(number, words, lookup))


def _beside_brand(number: int, words: Sequence[str], lookup: _Lookup) -> bool:
    """Whether a neighbour of the word in this place is a word of brands and of no category or
    colour: "red" beside "tape" may be the brand Red Tape."""
    for place in (number - 1, number + 1):
        if 0 <= place < len(words):
            lexemes = lookup.lexemes[words[place]]
            if lookup.brands(lexemes) and not lookup.kinds(lexemes):
                return True
    return False


def _distinct(terms: Sequence[Term]) -> list[Term]:
    """The terms with different lexemes: "shirt shirts" asks for one thing."""
    return list({(term.alternatives, term.synonyms): term for term in terms}.values())
