"""Full-text search in the catalogue, and a picture of given products: the first or the nearest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection

from app.db.queries import nearest
from app.db.queries.nearest import FilterClause
from app.types import Hit, Model, Vector

MAX_RANKED = 2000
"""Products of one candidate set that are ranked; a word that half of the catalogue has must not
cost a pass over half of the catalogue."""

IN_KIND, IN_TITLE, IN_OTHER_BRAND = 1.2, 1.0, 0.3
"""Weights of a word in the category or colour, in the title, and in the brand if the word is one
of categories or colours."""

SYNONYM_WEIGHT = 0.8
"""Weight of a synonym, as a share of that of the word itself."""

# Each set of candidates is bounded; the ranking looks at no other products. A picture is looked up
# for the best ones only, because the sort comes before.
MATCHING_PRODUCTS = """
WITH term AS MATERIALIZED (
    SELECT * FROM unnest(
        CAST(%(own)s AS tsquery[]), CAST(%(own_kind)s AS tsquery[]),
        CAST(%(own_beside)s AS tsquery[]), CAST(%(near)s AS tsquery[]),
        CAST(%(near_kind)s AS tsquery[]), CAST(%(near_beside)s AS tsquery[]),
        CAST(%(rarity)s AS float8[]), CAST(%(brand)s AS float8[])
    ) AS t(own, own_kind, own_beside, near, near_kind, near_beside, rarity, brand)
), {sets}, candidate AS MATERIALIZED (
    SELECT DISTINCT ON (product_id) product_id, words FROM ({union}) AS each
), ranked AS (
    SELECT c.product_id AS id, s.whole, s.score, length(c.words) AS length,
        coalesce(c.words @@ CAST(%(code)s AS tsquery), false) AS coded
    FROM candidate AS c CROSS JOIN LATERAL (
        SELECT bool_and(factor > {other_brand}) AS whole, sum(rarity * factor) AS score
        FROM (
            SELECT rarity, CASE
                WHEN c.words @@ own_kind THEN {kind}
                WHEN c.words @@ own_beside THEN {title}
                WHEN c.words @@ near_kind THEN {kind} * {synonym}
                WHEN c.words @@ near_beside THEN {title} * {synonym}
                WHEN c.words @@ own THEN brand
                WHEN c.words @@ near THEN brand * {synonym}
                ELSE 0 END AS factor
            FROM term) AS matched
    ) AS s
)
SELECT ranked.id, pp.picture_id, ranked.whole OR ranked.coded AS whole, {full} AS cut
FROM ranked JOIN LATERAL (
    SELECT shown.picture_id
    FROM product_picture AS shown JOIN embedding AS e USING (picture_id)
    WHERE shown.product_id = ranked.id AND e.model_id = {model}
    ORDER BY shown.position LIMIT 1) AS pp ON true
ORDER BY ranked.coded DESC, ranked.whole DESC, ranked.score DESC, ranked.length, ranked.id
LIMIT %(k)s"""

HAS_WORDS = """EXISTS (
            SELECT FROM product_words AS w
            WHERE w.product_id = p.id AND w.language = %(language)s
                AND w.words @@ CAST(%(asked)s AS tsquery)
                AND NOT coalesce(w.words @@ CAST(%(unwanted)s AS tsquery), false))"""
"""Condition on `product AS p`: it has a word that was asked for, and no excluded one."""

SEARCHABLE = """EXISTS (
            SELECT FROM product_picture AS shown JOIN embedding AS e USING (picture_id)
            WHERE shown.product_id = p.id AND e.model_id = {model})"""
"""Condition on `product AS p`: it has a picture with an embedding under a model."""

CANDIDATES = """{name} AS MATERIALIZED (
    SELECT w.product_id, w.words FROM product_words AS w JOIN product AS p ON p.id = w.product_id
    WHERE w.language = %(language)s AND w.words @@ CAST(%({name})s AS tsquery)
        AND NOT coalesce(w.words @@ CAST(%(unwanted)s AS tsquery), false)
        AND p.id <> ALL(CAST(%(excluded)s AS bigint[]))
        AND {condition}
    LIMIT %(most)s)"""


@dataclass(frozen=True, slots=True)
class Term:
    """One thing that a query asks for, by its lexemes: alternatives, each a phrase of lexemes.

    `synonyms` count less. `rarity` (0 and more) is its weight, `is_brand` whether a product that
    has it in the brand only has it in full.
    """

    alternatives: tuple[tuple[str, ...], ...]
    synonyms: tuple[tuple[str, ...], ...] = ()
    rarity: float = 1.0
    products: int = 0
    is_brand: bool = True


@dataclass(frozen=True, slots=True)
class WordQuery:
    """The words of a query as lexemes of `language`, an active text search configuration.

    `code` is the whole text as a sku or gtin, '' if no product has that; `unwanted` are phrases of
    lexemes that no result may have.
    """

    language: str
    terms: tuple[Term, ...]
    code: str = ""
    unwanted: tuple[tuple[str, ...], ...] = ()


class WordMatch(NamedTuple):
    """A product found by words, one of its pictures, and whether it has all the words that any
    product has, or is the sku or gtin that was typed."""

    product_id: int
    picture_id: int
    whole: bool


def find(
    connection: Connection,
    model: Model,
    query: WordQuery,
    filter_clause: FilterClause,
    *,
    k: int,
    excluded: Sequence[int],
) -> list[WordMatch]:
    """Products that match any of the words, best first.

    First the product whose sku or gtin the text is, then those that have all the words, then by the
    sum of the rarities of the words they have. The picture is the product's first one that has an
    embedding. At most `k` products, none of those in `excluded` (ids).

    Of a word that very many products have, MAX_RANKED are ranked; all of them only if these do not
    fill the page.
    """
    sets = dict(_candidate_sets(query))
    if not sets:
        return []
    condition = filter_clause.condition or "true"
    sql = MATCHING_PRODUCTS.format(
        sets=", ".join(CANDIDATES.format(name=name, condition=condition) for name in sets),
        union=" UNION ALL ".join(f"SELECT * FROM {name}" for name in sets),
        full=" OR ".join(f"(SELECT count(*) FROM {name}) >= %(most)s" for name in sets),
        model=model.id, kind=IN_KIND, title=IN_TITLE, other_brand=IN_OTHER_BRAND,
        synonym=SYNONYM_WEIGHT,
    )  # fmt: skip
    values = sets | _values(query) | {"k": k, "excluded": list(excluded), **filter_clause.values}
    rows = connection.exec_driver_sql(sql, values | {"most": MAX_RANKED}).all()
    if len(rows) < k and _may_be_cut(rows):
        rows = connection.exec_driver_sql(sql, values | {"most": None}).all()
    return [WordMatch(row[0], row[1], bool(row[2])) for row in rows]


def _may_be_cut(rows: Sequence[Any]) -> bool:
    """Whether a set of candidates was bounded; unknown where none of them has a picture."""
    return not rows or bool(rows[0].cut)


def _candidate_sets(query: WordQuery) -> Iterator[tuple[str, str]]:
    """Queries by name whose products are ranked: with the code, all terms, all but one, the rarest
    terms, any term."""
    if query.code:
        yield "by_code", _code(query.code)
    if not query.terms:
        return
    terms = [_any_of(term.alternatives + term.synonyms) or "" for term in query.terms]
    yield "all_terms", " & ".join(terms)
    if len(terms) == 1:
        return
    if 2 < len(terms) <= 8:
        without = (terms[:left] + terms[left + 1 :] for left in range(len(terms)))
        yield "all_but_one", " | ".join(f"({' & '.join(each)})" for each in without)
    yield "rarest_terms", " | ".join(terms[number] for number in _rarest(query.terms))
    yield "any_term", " | ".join(terms)


def _rarest(terms: Sequence[Term]) -> list[int]:
    """The rarest term and as many of the next ones as MAX_RANKED products have in all."""
    order = sorted(range(len(terms)), key=lambda number: terms[number].products)
    products = 0
    chosen: list[int] = []
    for number in order:
        products += terms[number].products
        if chosen and products > MAX_RANKED:
            break
        chosen.append(number)
    return chosen


def _values(query: WordQuery) -> dict[str, Any]:
    own = [term.alternatives for term in query.terms]
    near = [term.synonyms for term in query.terms]
    values: dict[str, Any] = {"language": query.language}
    for name, alternatives in (("own", own), ("near", near)):
        values[name] = [_any_of(each) for each in alternatives]
        values[f"{name}_kind"] = [_any_of(each, ":BC") for each in alternatives]
        values[f"{name}_beside"] = [_any_of(each, ":ABC") for each in alternatives]
    values["rarity"] = [term.rarity for term in query.terms]
    values["brand"] = [1.0 if term.is_brand else IN_OTHER_BRAND for term in query.terms]
    values["code"] = _code(query.code) if query.code else None
    values["unwanted"] = _any_of(query.unwanted)
    return values


def term_values(query: WordQuery) -> dict[str, Any]:
    """`terms`: a tsquery for each term that a product has in full, `unwanted` and `language`."""
    terms = [
        _any_of(term.alternatives + term.synonyms, "" if term.is_brand else ":ABC")
        for term in query.terms
    ]
    return {
        "language": query.language,
        "terms": terms,
        "unwanted": _any_of(query.unwanted),
    }


def asked_values(query: WordQuery) -> dict[str, Any]:
    """The values bound in HAS_WORDS."""
    terms = [term.alternatives + term.synonyms for term in query.terms]
    code = ((f"#{query.code}",),) if query.code else ()
    return {
        "language": query.language,
        "asked": _any_of([*code, *(phrase for phrases in terms for phrase in phrases)]),
        "unwanted": _any_of(query.unwanted),
    }


def _any_of(phrases: Sequence[Sequence[str]], weights: str = "") -> str | None:
    """A tsquery for any of the phrases, with lexemes of these weights only; None for none."""
    written = (" <-> ".join(_quoted(word) + weights for word in phrase) for phrase in phrases)
    alternatives = " | ".join(f"({phrase})" for phrase in written if phrase)
    return f"({alternatives})" if alternatives else None


def _code(code: str) -> str:
    return _quoted(f"#{code}")


def _quoted(lexeme: str) -> str:
    escaped = lexeme.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def first_pictures(
    connection: Connection, model: Model, products: Sequence[int]
) -> list[tuple[int, int]]:
    """Pairs of product id and picture id, for given products: each with its first picture that has
    an embedding, as in `find`."""
    sql = """SELECT DISTINCT ON (shown.product_id) shown.product_id, shown.picture_id
        FROM product_picture AS shown JOIN embedding AS e USING (picture_id)
        WHERE shown.product_id = ANY(CAST(%(ids)s AS bigint[])) AND e.model_id = %(model)s
        ORDER BY shown.product_id, shown.position"""
    values = {"ids": list(products), "model": model.id}
    return [(row[0], row[1]) for row in connection.exec_driver_sql(sql, values)]


def nearest_hits(
    connection: Connection,
    model: Model,
    query: Vector,
    products: Sequence[int],
    *,
    hidden: Sequence[int] = (),
) -> list[Hit]:
    """The nearest picture to a vector of each of these products (ids), nearest first, without
    hidden pictures (ids)."""
    filter_clause = FilterClause(
        "p.id = ANY(CAST(%(filter_0)s AS bigint[]))", {"filter_0": list(products)}
    )
    candidates = nearest.exact_filtered(
        connection, model, query, filter_clause, k=len(products), excluded=(), hidden=hidden
    )
    assert candidates is not None
    return list(candidates.hits)
