"""The duplicates page: two products side by side, and a person says whether they are one."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from app.bootstrap import App
from app.duplicates import review as duplicate_review
from app.duplicates.review import ReviewCursor, ReviewPair
from app.duplicates.verdicts import decide
from app.errors import LookalikeError
from app.types import Verdict
from app.ui.components import verdict_list
from app.ui.components.pair_view import fields, pictures
from app.ui.formatting import when
from app.ui.shared import plain, sentences, services
from app.ui.sign_in import judge, known

WALK, QUESTION, SAID, COUNT = "judging_walk", "judging_question", "judging_said", "judging_count"
"""What a session keeps: how far it has come, what it is asked, what became of the last answer, and
how many questions there were, so that a second click never answers the next one."""


def show() -> None:
    """Draw the page."""
    st.title("Duplicates", anchor=False)
    st.write("Products that look alike or read alike. Every later search keeps to what you say.")
    with sentences("the duplicates page"):
        app = services()
        _last_answer()
        question = _question(app)
        if question is not None:
            _ask(app, question)
        may_judge = not app.settings.page_read_only and known() is not None
        again = verdict_list.show(app, may_judge=may_judge)
        if again is not None:
            _look_again(app, again)


def _last_answer() -> None:
    """What became of the last answer, once."""
    kind, sentence = st.session_state.pop(SAID, ("", ""))
    if sentence:
        (st.success if kind == "done" else st.warning)(plain(sentence))


def _question(app: App) -> ReviewPair | None:
    """What the session is asked; looks for it where it is asked nothing."""
    question: ReviewPair | None = st.session_state.get(QUESTION)
    if question is not None:
        return question
    walk = st.session_state.get(WALK, ReviewCursor())
    with st.spinner("Looking for products that are alike …"):
        question, walk = duplicate_review.ask(app.engine, walk, app.settings.typo_similarity)
    _now_asked(question)
    st.session_state[WALK] = walk
    if question is None and walk.finished:
        st.success("There is nothing to judge: no two products are alike that are not judged yet.")
        if st.button("Start again", help="Skipped pairs come again, and new products too."):
            st.session_state[WALK] = ReviewCursor()
            st.rerun()
    elif question is None:
        st.info(f"{walk.looked_at:,} products were looked at, and no more are alike so far.")
        st.button("Look further", type="primary")
    return question


def _now_asked(question: ReviewPair | None) -> None:
    st.session_state[QUESTION] = question
    st.session_state[COUNT] = st.session_state.get(COUNT, 0) + 1


def _ask(app: App, question: ReviewPair) -> None:
    """The two products, what speaks for their being one, and the buttons that answer."""
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.html(pictures(question))
    with right:
        st.subheader("Are these the same product?", anchor=False)
        st.markdown("\n".join(f"- {plain(evidence)}" for evidence in _evidence(question)))
        if app.settings.page_read_only:
            st.info("This page is read-only: verdicts are shown, and none is taken.")
            _buttons(app, question, None)
        else:
            _buttons(app, question, judge())
    st.html(fields(question))


def _buttons(app: App, question: ReviewPair, name: str | None) -> None:
    """The answers; without a name only to go on."""
    number = st.session_state[COUNT]
    with st.container(horizontal=True):
        if name is not None:
            if st.button("Same product", type="primary", key=f"same {number}", shortcut="S"):
                _answer(app, question, True, name)
            if st.button("Different", key=f"different {number}", shortcut="D"):
                _answer(app, question, False, name)
        if st.button("Skip", key=f"skip {number}", shortcut="N"):
            _now_asked(None)
            st.rerun()


def _evidence(question: ReviewPair) -> list[str]:
    """What speaks for and against their being one product, a sentence each."""
    said = []
    if question.shares_picture:
        said.append("They show the same picture file.")
    elif question.distance is not None:
        means = f": {question.means}" if question.means else ""
        said.append(
            f"Their nearest pictures are {question.distance:.3f} apart{means} "
            "(0 is identical, 2 the opposite)."
        )
    if question.rule is not None:
        said.append(f"By their words they are one product: {question.rule}.")
    else:
        said.append("By their words they are two products.")
    if question.verdict is not None:
        said.append(f"So far: {_told(question.verdict)}. What you say now replaces it.")
    return said


def _told(verdict: Verdict) -> str:
    said = "are the same" if verdict.same else "differ"
    return f"they {said}, says {verdict.decided_by} ({when(verdict.decided_at)})"


def _answer(app: App, question: ReviewPair, same: bool, name: str) -> None:
    """Record a verdict and go on; a refusal is said beside what is asked next."""
    a, b = question.skus
    try:
        decide(app.engine, a, b, same, name, first=question.verdict is None, seen=question.verdict)
    except LookalikeError as exc:
        st.session_state[SAID] = ("refused", str(exc))
    else:
        said = "are the same product" if same else "are different products"
        st.session_state[SAID] = ("done", f"{a} and {b} {said}.")
    _now_asked(None)
    st.rerun()


def _look_again(app: App, skus: tuple[str, str]) -> None:
    """Ask about a pair that was decided; what is asked now waits."""
    question = duplicate_review.again(app.engine, skus, app.settings.typo_similarity)
    walk: ReviewCursor = st.session_state.get(WALK, ReviewCursor())
    if (now := st.session_state.get(QUESTION)) is not None:
        st.session_state[WALK] = replace(walk, waiting=(now.skus, *walk.waiting))
    _now_asked(question)
    st.rerun()
