"""The duplicates page: shows pairs of similar products and records verdicts on them."""

from __future__ import annotations

import streamlit as st

from app.bootstrap import App
from app.duplicates import review as duplicate_review
from app.duplicates.review import ReviewCursor, ReviewPair, ReviewProgress
from app.duplicates.verdicts import Decision, decide
from app.errors import LookalikeError
from app.types import Verdict
from app.ui.components import fold_overview, verdict_list
from app.ui.components.fold_overview import MESSAGE
from app.ui.components.pair_view import fields_html, pictures_html
from app.ui.engine_texts import engine_text
from app.ui.formatting import escape_markdown, format_decimal, format_number, format_time
from app.ui.shared import errors_as_text, services
from app.ui.sign_in import current_name, require_name
from app.ui.translation import N_, _, ngettext

CURSOR = "review_cursor"
PAIR = "review_pair"
PAIR_NUMBER = "review_pair_number"
VIEW = "duplicates_view"
"""Session keys: position in the review, the pair on display, its number (part of the buttons' keys,
so that a second click cannot answer the next pair), and what the page shows."""

CACHE_S = 60
"""Seconds for which the products are not counted again."""

PAIRS, GROUPS, SIMILAR = VIEWS = (
    N_("Pairs to judge"), N_("All groups"), N_("Similar listings"),
)  # fmt: skip


def show() -> None:
    """Draw the page."""
    st.title(_("Duplicates"), anchor=False)
    st.write(_("Products that look alike or read alike. Every later search keeps to what you say."))
    with errors_as_text("the duplicates page"):
        app = services()
        _draw_message()
        # What can be undone has its place before there is any, so that nothing below moves.
        with st.container(key="look-at", horizontal=True, vertical_alignment="center"):
            view = st.segmented_control(
                _("What to look at"), VIEWS, default=PAIRS, key=VIEW, format_func=_,
                label_visibility="collapsed", width="content",
            )  # fmt: skip
            fold_overview.draw_undo(app)
        if view in (GROUPS, SIMILAR):
            (fold_overview.show_groups if view == GROUPS else fold_overview.show_similar)(app)
            return
        pair = _current_pair(app)
        if pair is not None:
            stored = _count_products(app.settings.database_url)
            st.caption(progress_text(duplicate_review.progress(app.engine, _cursor(), stored)))
            _draw_pair(app, pair)
        may_judge = not app.settings.page_read_only and current_name() is not None
        judge_again = verdict_list.show(app, may_judge=may_judge)
        if judge_again is not None:
            _reopen(app, judge_again)


@st.cache_data(ttl=CACHE_S, show_spinner=False)
def _count_products(database_url: str | None) -> int:
    """How many products there are; the URL is an argument because it is the key of the cache."""
    return duplicate_review.count_products(services().engine)


def _draw_message() -> None:
    """Draw the outcome of the last verdict, once: over the page if it was recorded, so that nothing
    moves."""
    kind, message = st.session_state.pop(MESSAGE, ("", ""))
    if kind == "done":
        st.toast(escape_markdown(message), icon=":material/check:")
    elif message:
        st.warning(escape_markdown(message))


def _current_pair(app: App) -> ReviewPair | None:
    """The pair to judge; searches for the next one if there is none."""
    pair: ReviewPair | None = st.session_state.get(PAIR)
    if pair is not None:
        return pair
    cursor = _cursor()
    with st.spinner(_("Looking for products that are alike …")):
        pair, cursor = duplicate_review.next_pair(app.engine, cursor, app.settings.typo_similarity)
    _set_pair(pair)
    st.session_state[CURSOR] = cursor
    if pair is None and cursor.finished:
        st.success(
            _("There is nothing to judge: no two products are alike that are not judged yet.")
        )
        if st.button(_("Start again"), help=_("Skipped pairs come again, and new products too.")):
            st.session_state[CURSOR] = ReviewCursor()
            st.rerun()
    elif pair is None:
        text = _("{count} products were looked at, and no more are alike so far.")
        st.info(text.format(count=format_number(cursor.scanned)))
        st.button(_("Look further"), type="primary")
    return pair


def _cursor() -> ReviewCursor:
    cursor: ReviewCursor = st.session_state.get(CURSOR, ReviewCursor())
    return cursor


def progress_text(progress: ReviewProgress) -> str:
    """How far the review is, as one line."""
    parts = [
        _("{scanned} of {products} products were compared").format(
            scanned=format_number(progress.scanned), products=format_number(progress.products)
        ),
        _waiting_text(progress),
        ngettext("{count} verdict so far", "{count} verdicts so far", progress.decided).format(
            count=format_number(progress.decided)
        ),
    ]
    return " · ".join(parts)


def _waiting_text(progress: ReviewProgress) -> str:
    text = ngettext("{count} more pair waits", "{count} more pairs wait", progress.waiting)
    text = text.format(count=format_number(progress.waiting))
    if progress.waiting_weak:
        more = _("and {count} that only look or read alike")
        text += f", {more.format(count=format_number(progress.waiting_weak))}"
    return text


def _set_pair(pair: ReviewPair | None) -> None:
    st.session_state[PAIR] = pair
    st.session_state[PAIR_NUMBER] = st.session_state.get(PAIR_NUMBER, 0) + 1


def _draw_pair(app: App, pair: ReviewPair) -> None:
    """Draw the two products, the evidence that they are the same, and the buttons."""
    left, right = st.columns([3, 2], gap="large")
    with left, st.container(key="pair"):
        st.html(pictures_html(pair))
    with right:
        st.subheader(_("Are these the same product?"), anchor=False)
        evidence = [f"- {escape_markdown(sentence)}" for sentence in _evidence(pair)]
        st.markdown("\n".join(evidence))
        if app.settings.page_read_only:
            st.info(_("This page is read-only: verdicts are shown, and none is taken."))
            _draw_buttons(app, pair, None)
        else:
            _draw_buttons(app, pair, require_name())
    with st.container(key="pair-fields"):
        st.html(fields_html(pair))


def _draw_buttons(app: App, pair: ReviewPair, name: str | None) -> None:
    """Draw the buttons; without a name only the one to skip."""
    number = st.session_state[PAIR_NUMBER]
    with st.container(horizontal=True):
        if name is not None:
            if st.button(_("Same product"), type="primary", key=f"same {number}", shortcut="S"):
                _record(app, pair, True, name)
            if st.button(_("Different"), key=f"different {number}", shortcut="D"):
                _record(app, pair, False, name)
        if st.button(_("Skip"), key=f"skip {number}", shortcut="N"):
            _set_pair(None)
            st.rerun()


def _evidence(pair: ReviewPair) -> list[str]:
    """The evidence for and against one product, and an earlier verdict; one sentence each."""
    sentences = []
    if pair.shares_picture:
        sentences.append(_("They show the same picture file."))
    elif pair.distance is not None:
        means = f" ({engine_text(pair.means)})" if pair.means else ""
        text = _(
            "Their nearest pictures are {distance} apart{means}; 0 is identical, 2 the opposite."
        )
        sentences.append(text.format(distance=format_decimal(pair.distance, 3), means=means))
    if pair.rule is not None:
        text = _("By their words they are one product: {rule}.")
        sentences.append(text.format(rule=engine_text(pair.rule)))
    else:
        sentences.append(_("By their words they are two products."))
    if pair.verdict is not None:
        sentences.append(_verdict_text(pair.verdict))
    return sentences


def _verdict_text(verdict: Verdict) -> str:
    text = _("So far: they differ, says {name} ({time}). A new verdict replaces it.")
    if verdict.same:
        text = _("So far: they are the same, says {name} ({time}). A new verdict replaces it.")
    return text.format(name=verdict.decided_by, time=format_time(verdict.decided_at))


def _record(app: App, pair: ReviewPair, same: bool, name: str) -> None:
    """Record a verdict and continue; a refusal is shown above the next pair."""
    a, b = pair.skus
    try:
        verdict = decide(
            app.engine, a, b, same, name, first=pair.verdict is None, seen=pair.verdict
        )
    except LookalikeError as exc:
        st.session_state[MESSAGE] = ("refused", engine_text(str(exc)))
    else:
        summary = fold_overview.verdict_summary(a, b, same)
        st.session_state[MESSAGE] = ("done", f"{summary}.")
        fold_overview.remember(summary, (Decision(verdict, pair.verdict),))
    _set_pair(None)
    st.rerun()


def _reopen(app: App, skus: tuple[str, str]) -> None:
    """Show a pair that has a verdict; the pair on display comes back later."""
    pair = duplicate_review.load_pair(app.engine, skus, app.settings.typo_similarity)
    cursor = _cursor()
    if (displayed := st.session_state.get(PAIR)) is not None:
        st.session_state[CURSOR] = cursor.with_pair(displayed.skus)
    _set_pair(pair)
    st.rerun()
