"""Words that are typed in German: the names that misspelt ones mean, and the text that the text
side of the embedded encoder gets for them.
"""

from __future__ import annotations

import re
from functools import lru_cache

from app.duplicates.typos import spelling_errors
from app.encoders import german_words
from app.encoders.negations import with_minus_signs
from app.encoders.word_space import newest, tokens
from app.types import Query

MIN_LETTERS = 5
MIN_LETTERS_TWICE = 8
"""Letters from which on a word may have one error, and two. Shorter words are often a brand."""


@lru_cache(maxsize=1024)
def nearest_name(word: str) -> str | None:
    """The German name with the fewest errors (`spelling_errors`) against a word, as it is written;
    None if none is near, or if the word is German as it is."""
    plain = "".join(tokens(word))
    if len(plain) < MIN_LETTERS or not plain.isalpha() or is_german(plain):
        return None
    most = 2 if len(plain) >= MIN_LETTERS_TWICE else 1
    near = [name for name in german_words.CLEAR if abs(len(name) - len(plain)) <= most]
    ranked = [(spelling_errors(plain, name, most), name) for name in near]
    errors, best = min(ranked, default=(most + 1, ""))
    return german_words.written(best) if errors <= most else None


def is_german(plain: str) -> bool:
    """Whether a word, as `tokens` writes it, is in the tables of German words."""
    return bool(german_words.english(plain)) or plain in german_words.FUNCTION_WORDS


def to_encode(query: Query) -> str:
    """The words of a query for the text side of the embedded encoder. Of those that are typed in
    German, words that mean something else in English are translated, and misspelt ones are written
    as the German name that they are like, unless the text side knows them."""
    text = query.words or ""
    if query.words_language != "de":
        return text
    return re.sub(r"[^\W\d_]+", lambda match: _to_encode(match[0]), with_minus_signs(text))


def _to_encode(word: str) -> str:
    plain = "".join(tokens(word))
    if plain in german_words.ALSO_IN_ENGLISH:
        return german_words.english(plain)[0]
    return word if newest().has_name(plain) else nearest_name(plain) or word
