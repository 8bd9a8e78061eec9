"""The duplicates page: pairs, verdicts, and their effect on later searches."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect
from streamlit.testing.v1 import AppTest

from app.bootstrap import App
from app.config import Settings
from app.duplicates.review import latest_decisions
from app.duplicates.verdicts import decide
from app.types import Query
from support.colours import photo
from support.pages_served import SOON_MS, chromium, pages_of, tab
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
    boxes = (*page.success, *page.info, *page.warning, *page.error, *page.markdown)
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


# In a browser.


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def pages(settings: Settings) -> Iterator[str]:
    with pages_of(home=str(settings.home), database_url=str(settings.database_url)) as address:
        yield address


def found(app: App, query: Query) -> list[tuple[str, list[str]]]:
    """The products that a search finds, each with those folded into it."""
    matches = app.search.search(query).matches
    return [(m.product.sku, [fold.product.sku for fold in m.folded]) for m in matches]


@pytest.mark.browser
def test_verdicts_in_the_browser_apply_to_every_later_search(
    app: App, browser: Browser, pages: str
) -> None:
    add(app, {"A": [1, 3], "B": [1]}, attributes={"note": ODD})
    add(app, {"C": [2], "D": [2]}, brand=ODD)
    with app.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE product SET title = %(odd)s WHERE sku IN ('A', 'B')",
                                   {"odd": ODD})  # fmt: skip
    query = Query(picture=photo(1), k=2, fold=True)
    assert found(app, query) == [("A", ["B"]), ("C", [])]
    with tab(browser, f"{pages}/duplicates") as page:
        name = page.get_by_role("textbox", name="Your name")
        name.fill(ODD[:60])
        name.press("Enter")
        expect(page.get_by_role("button", name="Same product")).to_be_visible(timeout=SOON_MS)
        assert page.locator(".title dd").all_inner_texts() == [ODD, ODD]
        page.keyboard.press("d")
        expect(page.get_by_text("A and B are different products.")).to_be_visible(timeout=SOON_MS)
        page.get_by_role("button", name="Same product").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_text("C and D are the same product.")).to_be_visible(timeout=SOON_MS)
        listed = page.get_by_test_id("stMarkdown").filter(has_text="differ").first
        assert f"{ODD} (A) and {ODD} (B) differ" in listed.inner_text()
        assert ODD[:60] in listed.inner_text()
    assert found(app, query) == [("A", []), ("B", [])]
    assert found(app, Query(picture=photo(2), k=3, fold=True))[0] == ("C", ["D"])


@pytest.mark.browser
def test_on_a_phone_both_products_are_side_by_side_without_overflow(
    app: App, browser: Browser, pages: str
) -> None:
    add(app, {"A": [1], "B": [1]}, brand="Unbrokenword" * 20)
    with tab(browser, f"{pages}/duplicates", width=390) as page:
        figures = page.locator(".pair figure")
        expect(figures).to_have_count(2, timeout=SOON_MS)
        tops = [figure.bounding_box()["y"] for figure in figures.all()]  # type: ignore[index]
        overflow = page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    assert (tops[0] == tops[1], overflow) == (True, False)
