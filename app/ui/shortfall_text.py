"""Why fewer products came back than were asked for, in sentences of the page's language."""

from __future__ import annotations

from collections.abc import Iterator

from app.types import Count, Plan, Query, Shortfall
from app.ui.engine_texts import engine_text
from app.ui.formatting import format_count, format_decimal, format_number
from app.ui.translation import _, ngettext


def shortfall_text(plan: Plan, query: Query) -> str:
    """The causes with their counts; what a plan without counts says, and empty for a full page."""
    short = plan.shortfall_counts
    if short is None:
        return engine_text(plan.shortfall or "")
    return " ".join((*_conditions(short, query), *_taken_away(short)))


def _conditions(short: Shortfall, query: Query) -> Iterator[str]:
    """How many products meet each condition, and all of them."""
    if short.words is not None:
        yield _counted(
            short.words,
            _("No products have these words."),
            ngettext(
                "{count} product has one of these words.",
                "{count} products have one of these words.",
                short.words.products,
            ),
        )
    if short.filters is not None:
        yield _counted(
            short.filters,
            _("No products match these filters."),
            ngettext(
                "{count} product matches these filters.",
                "{count} products match these filters.",
                short.filters.products,
            ),
        )
    if short.words is not None and short.filters is not None:
        if short.words.products and short.filters.products:
            yield _counted(
                short.matching,
                _("No product does both."),
                ngettext(
                    "{count} product does both.",
                    "{count} products do both.",
                    short.matching.products,
                ),
            )
    elif short.words is None and short.filters is None:
        yield _counted(
            short.matching,
            _("No products have a picture that can be compared."),
            ngettext(
                "{count} product has a picture that can be compared.",
                "{count} products have a picture that can be compared.",
                short.matching.products,
            ),
        )
    if query.min_similarity is not None and (below := short.below_minimum).products:
        yield ngettext(
            "{count} of these is less similar than {least}.",
            "{count} of these are less similar than {least}.",
            below.products,
        ).format(count=format_count(below), least=format_decimal(query.min_similarity, 2))


def _taken_away(short: Shortfall) -> Iterator[str]:
    """What kept products that match from the results."""
    texts = (
        (short.unwanted, ngettext(
            "{count} was left out for an excluded word.",
            "{count} were left out for an excluded word.", short.unwanted)),
        (short.folded, ngettext(
            "{count} duplicate is shown under another product.",
            "{count} duplicates are shown under other products.", short.folded)),
        (short.like_query, ngettext(
            "{count} shows the same photo as the query.",
            "{count} show the same photo as the query.", short.like_query)),
        (short.like_match, ngettext(
            "{count} looks the same as a better result.",
            "{count} look the same as better results.", short.like_match)),
        (short.already_shown + short.earlier, ngettext(
            "{count} was shown before.", "{count} were shown before.",
            short.already_shown + short.earlier)),
    )  # fmt: skip
    if short.same_picture.products:
        yield ngettext(
            "{count} has the same picture as a result.",
            "{count} have the same picture as a result.",
            short.same_picture.products,
        ).format(count=format_count(short.same_picture))
    for count, text in texts:
        if count:
            yield text.format(count=format_number(count))
    without = short.without_picture
    if without is not None and without.products:
        yield ngettext(
            "{count} more has no picture that can be compared.",
            "{count} more have no picture that can be compared.",
            without.products,
        ).format(count=format_count(without))
    if short.gave_up_after:
        yield _(
            "The search for more stopped after {count} products, nearly all of which were hidden."
        ).format(count=format_number(short.gave_up_after))


def _counted(count: Count, none: str, some: str) -> str:
    return some.format(count=format_count(count)) if count.products else none
