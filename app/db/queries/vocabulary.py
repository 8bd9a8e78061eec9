"""SQL of the catalogue's vocabulary: how a typed text is split, stemmed, counted and corrected."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from string import digits as DIGITS

from sqlalchemy import Connection, text

from app.errors import SchemaMismatch

MAX_EXPANSIONS = 40
"""Words of the vocabulary that the beginning of a word stands for, the most frequent ones."""

MAX_CANDIDATES = 20_000
"""Words of the vocabulary that a misspelt word is compared with."""

TRIGRAM_SHARE = 0.15
"""Least share of trigrams that pg_trgm compares; two swapped letters of six leave 0.2."""

SPLIT = """
SELECT chunk, split_words(chunk), joined_words(chunk), product_code(chunk)
FROM unnest(CAST(:chunks AS text[])) AS chunk"""

LEXEMES = """
SELECT value, ARRAY(
    SELECT lexeme FROM unnest(to_tsvector(CAST(:language AS regconfig), value))
    ORDER BY positions[1], lexeme)
FROM unnest(CAST(:texts AS text[])) AS value"""

COUNTS = """
SELECT lexeme, sum(products), sum(kinds), sum(brands) FROM vocabulary
WHERE language = :language AND lexeme = ANY(CAST(:lexemes AS text[]))
GROUP BY lexeme HAVING sum(products) > 0"""

CODES = """
SELECT code FROM unnest(CAST(:codes AS text[])) AS code
WHERE EXISTS (
    SELECT FROM product_words
    WHERE words @@ CAST('''#' || replace(replace(code, '\\', '\\\\'), '''', '''''') || ''''
        AS tsquery))"""

# A range of the index on `word`, whose collation is that of code points. Transactions that wrote
# the same word at the same time leave a row each, hence the sums.
BEGINNING = """
SELECT lexeme FROM vocabulary
WHERE language = :language AND word >= :beginning AND word < :beginning || chr(1114109)
    AND lexeme IS NOT NULL
GROUP BY word, lexeme HAVING sum(products) > 0
ORDER BY sum(products) DESC, word LIMIT :most"""

SAME_FIRST_LETTER = """
SELECT word, lexeme, CAST(sum(products) AS bigint) FROM vocabulary
WHERE language = :language AND word >= :letter AND word < :letter || chr(1114109)
    AND length(word) BETWEEN :shortest AND :longest AND lexeme IS NOT NULL
GROUP BY word, lexeme HAVING sum(products) > 0
ORDER BY sum(products) DESC, word LIMIT :most"""

# An error adds one letter at most that the typed word and its stem do not have, and a stem is the
# beginning of its word but for a letter. Words that begin with more digits than there may be errors
# are not read at all: some catalogues have more numbers than words. OFFSET 0 keeps the planner from
# reading all words once instead of each range by the index.
ANY_FIRST_LETTER = """
SELECT word, lexeme, CAST(sum(products) AS bigint)
FROM unnest(CAST(:lows AS text[]), CAST(:highs AS text[])) AS part (low, high)
CROSS JOIN LATERAL (
    SELECT v.word, v.lexeme, v.products FROM vocabulary AS v
    WHERE v.word >= part.low AND v.word < part.high AND v.language = :language
        AND length(v.word) BETWEEN :shortest AND :longest
        AND length(translate(v.lexeme, :letters, '')) <= :distance
    OFFSET 0) AS found
GROUP BY word, lexeme HAVING sum(products) > 0
ORDER BY sum(products) DESC, word LIMIT :most"""

BY_TRIGRAMS = """
SELECT word, lexeme, CAST(sum(products) AS bigint) FROM vocabulary
WHERE language = :language AND word % :word
    AND length(word) BETWEEN :shortest AND :longest AND lexeme IS NOT NULL
GROUP BY word, lexeme HAVING sum(products) > 0
ORDER BY word <-> :word, word LIMIT 50"""

TOTAL = "SELECT greatest(reltuples, 0) FROM pg_class WHERE oid = 'product'::regclass"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a typed text between spaces: its words, the same written as one word, and as a
    sku; the last two are '' where they add nothing."""

    words: tuple[str, ...]
    joined: str
    code: str


@dataclass(frozen=True, slots=True)
class WordCount:
    """How many products have a lexeme (an upper bound where several words share it), how many of
    them in their category or colour, and how many in their brand."""

    products: int = 0
    kinds: int = 0
    brands: int = 0


@dataclass(frozen=True, slots=True)
class VocabularyWord:
    """A word of the catalogue, its lexeme, and the number of products that have it (0: it is known
    as a synonym only)."""

    word: str
    lexeme: str
    products: int


def language(connection: Connection) -> str:
    """The text search configuration of the words that searches read. Raises SchemaMismatch."""
    found = connection.execute(text("SELECT language FROM word_language WHERE active")).scalar()
    if found is None:
        raise SchemaMismatch(
            "The words of the catalogue have no language. Run `lookalike migrate`."
        )
    return str(found)


def split(connection: Connection, chunks: Sequence[str]) -> list[Chunk]:
    """The chunks (parts of a text between spaces) as words, by the functions that split titles."""
    rows = connection.execute(text(SPLIT), {"chunks": list(chunks)}).all()
    return [Chunk(tuple(words.split()), joined, code or "") for _, words, joined, code in rows]


def lexemes(
    connection: Connection, language: str, texts: Collection[str]
) -> Mapping[str, tuple[str, ...]]:
    """The lexemes of each text in order; none for a stop word."""
    values = {"language": language, "texts": sorted(texts)}
    return {row[0]: tuple(row[1]) for row in connection.execute(text(LEXEMES), values)}


def counts(
    connection: Connection, language: str, lexemes: Collection[str]
) -> Mapping[str, WordCount]:
    """The counts of those lexemes that products have."""
    values = {"language": language, "lexemes": sorted(lexemes)}
    rows = connection.execute(text(COUNTS), values)
    return {row[0]: WordCount(*map(int, row[1:])) for row in rows}


def codes(connection: Connection, codes: Collection[str]) -> frozenset[str]:
    """Those of the codes (as `product_code` writes them) that are the sku or gtin of a product."""
    return frozenset(connection.execute(text(CODES), {"codes": sorted(codes)}).scalars())


def synonyms(connection: Connection, phrases: Collection[str]) -> Mapping[str, tuple[str, ...]]:
    """What each phrase also means; phrases without a synonym are left out."""
    sql = """SELECT word, array_agg(means ORDER BY means) FROM synonym
        WHERE word = ANY(CAST(:phrases AS text[])) GROUP BY word"""
    rows = connection.execute(text(sql), {"phrases": sorted(phrases)})
    return {row[0]: tuple(row[1]) for row in rows}


def synonyms_spelt_like(
    connection: Connection, language: str, word: str, distance: int
) -> list[VocabularyWord]:
    """Single words of the table of synonyms with about the same length."""
    sql = """SELECT DISTINCT word, (tsvector_to_array(
            to_tsvector(CAST(:language AS regconfig), word)))[1], 0
        FROM synonym
        WHERE length(word) BETWEEN :shortest AND :longest AND word !~ ' '
            AND to_tsvector(CAST(:language AS regconfig), word) <> ''
        ORDER BY word LIMIT :most"""
    return _words(connection, sql, _lengths(language, word, distance))


def beginning_with(connection: Connection, language: str, beginning: str) -> tuple[str, ...]:
    """The lexemes of the most frequent words that begin so, at most MAX_EXPANSIONS."""
    values = {"language": language, "beginning": beginning, "most": MAX_EXPANSIONS}
    return tuple(dict.fromkeys(connection.execute(text(BEGINNING), values).scalars()))


def spelt_like(
    connection: Connection, language: str, word: str, distance: int
) -> list[VocabularyWord]:
    """Words of the vocabulary with the same first letter and about the same length: `distance` is
    the largest difference."""
    values = _lengths(language, word, distance) | {"letter": word[0]}
    return _words(connection, SAME_FIRST_LETTER, values)


def spelt_otherwise(
    connection: Connection, language: str, word: str, stem: str, distance: int
) -> list[VocabularyWord]:
    """The same with any first letter: by pg_trgm where the database has it, else those with at most
    `distance` letters that neither the word, which has no digits, nor its stem has."""
    values = _lengths(language, word, distance)
    if not has_trigrams(connection):
        lows, highs = map(list, zip(*_few_leading_digits(distance - 1), strict=True))
        told = {"letters": word + stem, "distance": distance, "lows": lows, "highs": highs}
        return _words(connection, ANY_FIRST_LETTER, values | told)
    connection.execute(
        text("SELECT set_config('pg_trgm.similarity_threshold', :share, true)"),
        {"share": str(TRIGRAM_SHARE)},
    )
    return _words(connection, BY_TRIGRAMS, values | {"word": word})


@cache
def _few_leading_digits(most: int) -> tuple[tuple[str, str], ...]:
    """Ranges, each from a text up to another, of the words that begin with at most so many
    digits, by code points."""
    ranges = [("", "0"), (":", chr(1114109))]
    for length in range(1, most + 1):
        for digits in map("".join, product(DIGITS, repeat=length)):
            behind = digits[:-1] + chr(ord(digits[-1]) + 1)
            ranges += [(digits, f"{digits}0"), (f"{digits}:", behind)]
    return tuple(ranges)


def has_trigrams(connection: Connection) -> bool:
    """Whether the extension pg_trgm is installed in this database."""
    sql = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm')"
    return bool(connection.execute(text(sql)).scalar_one())


def product_estimate(connection: Connection) -> float:
    """The number of products by PostgreSQL's statistics; 0 if unknown."""
    return float(connection.execute(text(TOTAL)).scalar_one())


def _lengths(language: str, word: str, distance: int) -> dict[str, object]:
    return {
        "language": language,
        "shortest": len(word) - distance,
        "longest": len(word) + distance,
        "most": MAX_CANDIDATES,
    }


def _words(connection: Connection, sql: str, values: Mapping[str, object]) -> list[VocabularyWord]:
    return [VocabularyWord(*row) for row in connection.execute(text(sql), values)]
