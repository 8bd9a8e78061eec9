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
from app.ui.formatting import escape_markdown, format_time
from app.ui.shared import errors_as_text, services
from app.ui.sign_in import current_name, require_name

CURSOR = "review_cursor"
PAIR = "review_pair"
PAIR_NUMBER = "review_pair_number"
VIEW = "duplicates_view"
"""Session keys: position in the review, the pair on display, its number (part of the buttons' keys,
so that a second click cannot answer the next pair), and what the page shows."""

PAIRS, GROUPS, SIMILAR = VIEWS = ("Pairs to judge", "All groups", "Similar listings")


def show() -> None:
    """Draw the page."""
    st.title("Duplicates", anchor=False)
    st.write("Products that look alike or read alike. Every later search keeps to what you say.")
    with errors_as_text("the duplicates page"):
        app = services()
        _draw_message()
        fold_overview.draw_undo(app)
        view = st.segmented_control(
            "What to look at", VIEWS, default=PAIRS, key=VIEW, label_visibility="collapsed"
        )
        if view in (GROUPS, SIMILAR):
            (fold_overview.show_groups if view == GROUPS else fold_overview.show_similar)(app)
            return
        pair = _current_pair(app)
        if pair is not None:
            st.caption(progress_text(duplicate_review.progress(app.engine, _cursor())))
            _draw_pair(app, pair)
        may_judge = not app.settings.page_read_only and current_name() is not None
        judge_again = verdict_list.show(app, may_judge=may_judge)
        if judge_again is not None:
            _reopen(app, judge_again)


def _draw_message() -> None:
    """Draw the outcome of the last verdict, once."""
    kind, message = st.session_state.pop(MESSAGE, ("", ""))
    if message:
        (st.success if kind == "done" else st.warning)(escape_markdown(message))


def _current_pair(app: App) -> ReviewPair | None:
    """The pair to judge; searches for the next one if there is none."""
    pair: ReviewPair | None = st.session_state.get(PAIR)
    if pair is not None:
        return pair
    cursor = _cursor()
    with st.spinner("Looking for products that are alike …"):
        pair, cursor = duplicate_review.next_pair(app.engine, cursor, app.settings.typo_similarity)
    _set_pair(pair)
    st.session_state[CURSOR] = cursor
    if pair is None and cursor.finished:
        st.success("There is nothing to judge: no two products are alike that are not judged yet.")
        if st.button("Start again", help="Skipped pairs come again, and new products too."):
            st.session_state[CURSOR] = ReviewCursor()
            st.rerun()
    elif pair is None:
        st.info(f"{cursor.scanned:,} products were looked at, and no more are alike so far.")
        st.button("Look further", type="primary")
    return pair


def _cursor() -> ReviewCursor:
    cursor: ReviewCursor = st.session_state.get(CURSOR, ReviewCursor())
    return cursor


def progress_text(progress: ReviewProgress) -> str:
    """How far the review is, as one line."""
    waiting = f"{progress.waiting:,} more pairs wait"
    if progress.waiting == 1:
        waiting = "1 more pair waits"
    if progress.waiting_by_pictures:
        waiting += f", and {progress.waiting_by_pictures:,} that only look alike"
    return (
        f"{progress.scanned:,} of {progress.products:,} products were compared · {waiting} · "
        f"{progress.decided:,} verdict{'s' * (progress.decided != 1)} so far"
    )


def _set_pair(pair: ReviewPair | None) -> None:
    st.session_state[PAIR] = pair
    st.session_state[PAIR_NUMBER] = st.session_state.get(PAIR_NUMBER, 0) + 1


def _draw_pair(app: App, pair: ReviewPair) -> None:
    """Draw the two products, the evidence that they are the same, and the buttons."""
    left, right = st.columns([3, 2], gap="large")
    with left, st.container(key="pair"):
        st.html(pictures_html(pair))
    with right:
        st.subheader("Are these the same product?", anchor=False)
        evidence = [f"- {escape_markdown(sentence)}" for sentence in _evidence(pair)]
        st.markdown("\n".join(evidence))
        if app.settings.page_read_only:
            st.info("This page is read-only: verdicts are shown, and none is taken.")
            _draw_buttons(app, pair, None)
        else:
            _draw_buttons(app, pair, require_name())
    st.html(fields_html(pair))


def _draw_buttons(app: App, pair: ReviewPair, name: str | None) -> None:
    """Draw the buttons; without a name only the one to skip."""
    number = st.session_state[PAIR_NUMBER]
    with st.container(horizontal=True):
        if name is not None:
            if st.button("Same product", type="primary", key=f"same {number}", shortcut="S"):
                _record(app, pair, True, name)
            if st.button("Different", key=f"different {number}", shortcut="D"):
                _record(app, pair, False, name)
        if st.button("Skip", key=f"skip {number}", shortcut="N"):
            _set_pair(None)
            st.rerun()


def _evidence(pair: ReviewPair) -> list[str]:
    """The evidence for and against one product, and an earlier verdict; one sentence each."""
    sentences = []
    if pair.shares_picture:
        sentences.append("They show the same picture file.")
    elif pair.distance is not None:
        means = f": {pair.means}" if pair.means else ""
        sentences.append(
            f"Their nearest pictures are {pair.distance:.3f} apart{means} "
            "(0 is identical, 2 the opposite)."
        )
    if pair.rule is not None:
        sentences.append(f"By their words they are one product: {pair.rule}.")
    else:
        sentences.append("By their words they are two products.")
    if pair.verdict is not None:
        sentences.append(f"So far: {_verdict_text(pair.verdict)}. A new verdict replaces it.")
    return sentences


def _verdict_text(verdict: Verdict) -> str:
    relation = "are the same" if verdict.same else "differ"
    return f"they {relation}, says {verdict.decided_by} ({format_time(verdict.decided_at)})"


def _record(app: App, pair: ReviewPair, same: bool, name: str) -> None:
    """Record a verdict and continue; a refusal is shown above the next pair."""
    a, b = pair.skus
    try:
        verdict = decide(
            app.engine, a, b, same, name, first=pair.verdict is None, seen=pair.verdict
        )
    except LookalikeError as exc:
        st.session_state[MESSAGE] = ("refused", str(exc))
    else:
        relation = "are the same product" if same else "are different products"
        st.session_state[MESSAGE] = ("done", f"{a} and {b} {relation}.")
        fold_overview.remember(f"{a} and {b} {relation}", (Decision(verdict, pair.verdict),))
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
