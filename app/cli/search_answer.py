"""Answers `lookalike search` with the services of a process, and prints the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.bootstrap import App
from app.cli.output import print_json
from app.cli.search_output import as_dict, facets_as_dict, print_facets, print_matches
from app.search.filters import parse
from app.search.vector_cache import VectorCache
from app.types import Query


def print_answer(
    app: App,
    options: Mapping[str, Any],
    photos: Mapping[str, Sequence[bytes]],
    *,
    untrusted: bool = False,
) -> None:
    """Search and print. `options` are those of the command by name, `photos` the contents of PHOTO
    (`photo`), --also and --not-like; `untrusted` as in `Query`. Raises LookalikeError."""
    query, cache = replace(_query(options, photos), untrusted=untrusted), VectorCache()
    result = app.search.search(query, cache)
    facets = app.facets.of_query(query, cache) if options["with_facets"] else None
    if options["as_json"]:
        more = {} if facets is None else {"facets": facets_as_dict(facets)}
        print_json(as_dict(result) | more)
        return
    print_matches(result)
    if facets is not None:
        print_facets(facets)


def _query(options: Mapping[str, Any], photos: Mapping[str, Sequence[bytes]]) -> Query:
    region = options["region"]
    return Query(
        picture=next(iter(photos["photo"]), None),
        more_pictures=tuple(photos["also"]),
        without_pictures=tuple(photos["not_like"]),
        sku=options["sku"],
        words=options["words"],
        words_weight=options["weight"],
        words_by=options["words_by"],
        words_language=options["text_language"],
        without_words=options["not_text"],
        without_weight=options["not_weight"],
        k=options["k"],
        filters=parse(list(options["filters"])),
        region=None if region is None else tuple(region),
        objects=options["objects"] == "on",
        fold=options["fold"],
        near_query=options["near_query"],
        near_match=options["near_match"],
        min_similarity=options["min_similarity"],
        shown=tuple(options["shown"]),
        listings=True,
    )
