"""The duplicates page: pairs, verdicts, and their effect on later searches."""

from __future__ import annotations

import re

import pytest
import streamlit as st
from streamlit.runtime.caching import cache_utils
from streamlit.testing.v1 import AppTest

from app.bootstrap import App
from app.duplicates.review import latest_decisions
from app.duplicates.verdicts import decide
from support.shop import add

ODD = (
    "<b>Tea</b> *pot* $x$ :smile: :red[no] [x](javascript:alert(1)) <script>alert(2)</script> &amp;"
)


def duplicates() -> None:
    """The script that Streamlit runs."""
    from app.ui.views import duplicates as duplicates_view

    duplicates_view.show()


def drawn(name: str | None = "Ada") -> AppTest:
    """The page of a user who gave this name."""
    page = AppTest.from_function(duplicates, default_timeout=300)
    if name is not None:
        page.session_state["reviewer_name"] = name
    return page.run()


def press(page: AppTest, label: str) -> AppTest:
    return next(button for button in page.button if button.label == label).click().run()


def labels(page: AppTest) -> list[str]:
    return [button.label for button in page.button]


def text_of(page: AppTest) -> str:
    """All text of the page in alerts and in Markdown."""
    boxes = (*page.toast, *page.success, *page.info, *page.warning, *page.error, *page.markdown)
    return "\n".join(box.value.replace("\\", "") for box in boxes)


def verdicts(app: App) -> list[tuple[str, str, bool, str]]:
    found = [each.verdict for each in latest_decisions(app.engine, 100)]
    return [(v.sku_a, v.sku_b, v.same, v.decided_by) for v in found]


@pytest.mark.parametrize(("label", "same"), [("Same product", True), ("Different", False)])
def test_an_answer_is_recorded_with_the_name_and_the_next_pair_is_asked(
    catalogue: App, label: str, same: bool
) -> None:
    add(catalogue, {"A": [1], "B": [1], "C": [2], "D": [2]})
    page = press(drawn(), label)
    assert verdicts(catalogue) == [("A", "B", same, "Ada")]
    assert "Same product" in labels(page) and not page.exception
    assert "no two products are alike" in text_of(press(page, label))


def test_the_page_says_how_far_the_review_is(catalogue: App) -> None:
    add(catalogue, {"A": [1], "B": [1], "C": [2], "D": [2]})
    page = drawn()
    said = "4 of 4 products were compared · {} · {} so far"
    assert page.caption[0].value == said.format("1 more pair waits", "0 verdicts")
    page = press(page, "Different")
    captions = [each.value for each in page.caption]
    assert said.format("0 more pairs wait", "1 verdict") in captions


def test_a_skipped_pair_is_not_recorded(catalogue: App) -> None:
    add(catalogue, {"A": [1], "B": [1]})
    page = press(drawn(), "Skip")
    assert verdicts(catalogue) == []
    assert "Same product" in labels(press(page, "Start again"))


def test_the_name_is_requested_once_before_the_first_verdict(catalogue: App) -> None:
    add(catalogue, {"A": [1], "B": [1], "C": [2], "D": [2]})
    page = drawn(None)
    assert "Same product" not in labels(page)
    page.text_input[0].input("  Ada  ")
    page = press(page, "Start judging")
    assert not page.text_input
    page = press(page, "Same product")
    assert not page.text_input and "Same product" in labels(page)
    assert verdicts(catalogue)[0][3] == "Ada"


def test_a_blank_name_is_refused(catalogue: App) -> None:
    add(catalogue, {"A": [1], "B": [1]})
    page = drawn(None)
    page.text_input[0].input("   ")
    assert "Type your name first" in text_of(press(page, "Start judging"))


def test_a_concurrent_verdict_of_another_person_is_kept_and_reported(catalogue: App) -> None:
    add(catalogue, {"A": [1], "B": [1]})
    page = drawn()
    decide(catalogue.engine, "A", "B", False, "Bo")
    page = press(page, "Same product")
    assert "A differs from B (by Bo)" in text_of(page)
    assert verdicts(catalogue) == [("A", "B", False, "Bo")]


def test_a_contradiction_is_an_error_message(catalogue: App) -> None:
    add(catalogue, {"A": [1], "C": [1], "B": [2]})
    page = drawn()
    decide(catalogue.engine, "A", "B", True, "Bo")
    decide(catalogue.engine, "B", "C", True, "Bo")
    page = press(page, "Different")
    assert "cannot be different, because of earlier verdicts" in text_of(page)
    assert len(verdicts(catalogue)) == 2 and not page.exception


def test_a_product_deleted_meanwhile_is_an_error_message(catalogue: App) -> None:
    add(catalogue, {"A": [1], "B": [1]})
    page = drawn()
    catalogue.catalog.delete(["B"])
    assert "no product has the sku B" in text_of(press(page, "Same product"))


def test_a_verdict_can_be_changed(catalogue: App) -> None:
    add(catalogue, {"A": [1], "B": [1]})
    decide(catalogue.engine, "A", "B", True, "Bo")
    page = press(drawn(), "Judge again")
    assert any(
        "they are the same, says Bo" in text.value.replace("\\", "") for text in page.markdown
    )
    press(page, "Different")
    assert verdicts(catalogue) == [("A", "B", False, "Ada")]


def test_the_displayed_pair_returns_after_a_verdict_was_reopened(catalogue: App) -> None:
    add(catalogue, {"A": [1], "B": [1], "C": [2], "D": [2]})
    decide(catalogue.engine, "A", "B", True, "Bo")
    page = press(drawn(), "Judge again")
    press(press(page, "Skip"), "Different")
    assert verdicts(catalogue)[0] == ("C", "D", False, "Ada")


def test_the_list_of_verdicts_has_pages(catalogue: App) -> None:
    add(catalogue, {f"P{n:02}": [n] for n in range(13)})
    for n in range(1, 13):
        decide(catalogue.engine, "P00", f"P{n:02}", False, "Bo")
    page = drawn()
    assert labels(page).count("Judge again") == 10
    page.number_input[0].set_value(2).run()
    assert labels(page).count("Judge again") == 2


def test_a_read_only_page_shows_pairs_and_verdicts_and_records_none(
    catalogue: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_PAGE_READ_ONLY", "true")
    add(catalogue, {"A": [1], "B": [1], "C": [2]})
    decide(catalogue.engine, "B", "C", True, "Bo")
    page = drawn()
    assert labels(page) == ["Skip"] and not page.text_input
    assert "read-only" in text_of(page) and "Bo" in text_of(page)


def test_an_empty_catalogue_has_nothing_to_judge(catalogue: App) -> None:
    page = drawn()
    assert "no two products are alike" in text_of(page) and not page.exception


def test_a_database_without_tables_is_an_error_message(
    catalogue: App, empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_DATABASE_URL", empty_url)
    assert "Run `lookalike init` first" in text_of(drawn())


def signing(user: dict[str, str | bool], auth: dict[str, object]) -> AppTest:
    """The page of this user, with sign-in configured by these secrets."""
    page = AppTest.from_function(duplicates, default_timeout=300)
    page.secrets["auth"] = {"redirect_uri": "http://localhost/oauth2callback"} | auth
    page.user = user
    return page.run()


CLIENT = {"client_id": "id", "client_secret": "s", "server_metadata_url": "https://sso.test/"}


def test_verdicts_of_a_signed_in_user_have_that_name(catalogue: App) -> None:
    add(catalogue, {"A": [1], "B": [1]})
    page = signing({"is_logged_in": True, "email": "ada@shop.test", "name": "Ada"}, CLIENT)
    assert not page.text_input and "Sign out" in labels(page)
    press(page, "Different")
    assert verdicts(catalogue) == [("A", "B", False, "ada@shop.test")]


def test_with_sign_in_configured_verdicts_require_it(catalogue: App) -> None:
    add(catalogue, {"A": [1], "B": [1]})
    for auth, offered in ((CLIENT, ["Sign in"]), ({"okta": CLIENT}, ["Sign in with okta"])):
        page = signing({"is_logged_in": False}, auth)
        assert labels(page) == [*offered, "Skip"]
        assert not page.text_input and not page.exception


def captions(page: AppTest) -> str:
    return " ".join(each.value for each in page.caption)


def test_products_are_counted_once_a_minute_and_verdicts_at_once(
    catalogue: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(cache_utils, "TTLCACHE_TIMER", lambda: now[0])
    st.cache_data.clear()
    add(catalogue, {"A": [1], "B": [1], "C": [2], "D": [2]})
    assert "of 4 products" in captions(drawn())
    add(catalogue, {"E": [3]})
    now[0] += 59
    page = press(drawn(), "Same product")
    assert re.search("of 4 products.*1 verdict so far", captions(page))
    now[0] += 2
    assert "of 5 products" in captions(page.run())
