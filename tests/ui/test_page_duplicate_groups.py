"""The duplicates page: all groups with their evidence, similar listings, bulk verdicts and undo."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from app.bootstrap import App
from app.catalog.service import CatalogService
from app.duplicates.review import latest_decisions
from app.duplicates.verdicts import AlreadyDecided, decide, decide_all, undo
from app.types import Query
from app.ui.components.fold_lists import figure_html
from app.ui.components.product_cards import similar_label
from support.colours import photo
from support.shop import add
from support.text_encoder import add_titled


def duplicates() -> None:
    """The script that Streamlit runs."""
    from app.ui.views import duplicates as duplicates_view

    duplicates_view.show()


def drawn(view: str, name: str | None = "Ada") -> AppTest:
    """The page with this view chosen."""
    page = AppTest.from_function(duplicates, default_timeout=300)
    page.session_state["duplicates_view"] = view
    if name is not None:
        page.session_state["reviewer_name"] = name
    return page.run()


def press(page: AppTest, label: str) -> AppTest:
    return next(button for button in page.button if label in button.label).click().run()


def labels(page: AppTest) -> list[str]:
    return [button.label for button in page.button]


def text_of(page: AppTest) -> str:
    boxes = (
        *page.toast,
        *page.success,
        *page.info,
        *page.warning,
        *page.error,
        *page.markdown,
        *page.caption,
    )
    return "\n".join(box.value.replace("\\", "") for box in boxes)


def verdicts(app: App) -> set[tuple[str, str, bool]]:
    found = [each.verdict for each in latest_decisions(app.engine, 100)]
    return {(v.sku_a, v.sku_b, v.same) for v in found}


@pytest.fixture
def shop(catalogue: App) -> App:
    """A, B and C with one photo and one title; D with the title and another photo."""
    for sku, seed in (("A", 1), ("B", 1), ("C", 1), ("D", 2)):
        add_titled(catalogue, sku, "Kestrel Marria", seed, brand="Kestrel")
    with catalogue.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE product SET identity_key = '1|kestrel|||marria' WHERE sku <= 'D'"
        )
    return catalogue


def test_every_group_is_listed_with_a_button_for_each_member(shop: App) -> None:
    page = drawn("All groups")
    assert "Kestrel Marria** · 3 listings are one product" in text_of(page)
    assert labels(page).count("Not the same") == 2 and not page.exception


def test_only_the_pictures_that_are_drawn_are_read(
    shop: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ui.components.fold_lists.MAX_MEMBERS", 1)
    asked: list[str] = []
    read = CatalogService.thumbnails
    monkeypatch.setattr(
        CatalogService, "thumbnails", lambda own, skus: asked.extend(skus) or read(own, skus)
    )
    assert "and 1 more" in text_of(drawn("All groups"))
    assert asked == ["A", "B"]


def test_a_large_catalogue_is_compared_in_parts_and_the_page_says_so(
    shop: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ui.components.fold_overview.PART_SIZE", 2)
    page = drawn("All groups")
    assert "The catalogue has 4 products. Compared are number 1 to 2" in text_of(page)
    assert "2 listings are one product" in text_of(page)
    page.number_input(key="duplicates_part").set_value(2).run()
    assert "Compared are number 3 to 4" in text_of(page) and not page.exception
    assert "No two products of this part of the catalogue are duplicates." in text_of(page)


def test_a_verdict_is_named_as_the_reason_why_two_are_apart(shop: App) -> None:
    decide(shop.engine, "A", "B", False, "Ada")
    assert "but a verdict says that they are different products" in text_of(
        drawn("Similar listings")
    )


def test_not_the_same_takes_a_product_out_of_its_group_and_undo_puts_it_back(shop: App) -> None:
    page = press(drawn("All groups"), "Not the same")
    assert verdicts(shop) == {("A", "B", False)}
    assert "2 listings are one product" in text_of(page)
    assert "A and B are different products." in text_of(page)
    page = press(page, "Undo: A and B are different products")
    assert verdicts(shop) == set()
    assert "3 listings are one product" in text_of(page)
    assert not any("Undo" in label for label in labels(page))


def test_all_groups_of_a_page_are_accepted_at_once_and_undone_at_once(shop: App) -> None:
    page = press(drawn("All groups"), "Accept all on this page (1)")
    assert verdicts(shop) == {("A", "B", True), ("A", "C", True)}
    assert not any("Accept all" in label for label in labels(page))
    press(page, "Undo: 2 pairs are the same product")
    assert verdicts(shop) == set()


def test_one_group_is_accepted_at_once_and_undone_at_once(shop: App) -> None:
    for sku in ("X", "Y"):
        add_titled(shop, sku, "Oak chair", 7)
    page = drawn("All groups")
    assert labels(page).count("Accept this group") == 2
    page = press(page, "Accept this group")
    accepted = verdicts(shop)
    assert accepted in ({("A", "B", True), ("A", "C", True)}, {("X", "Y", True)})
    assert labels(page).count("Accept this group") == 1
    press(page, "Undo: ")
    assert verdicts(shop) == set()


def test_similar_listings_can_be_declared_the_same(shop: App) -> None:
    page = drawn("Similar listings")
    assert "Same words, but their pictures differ (distance" in text_of(page)
    page = press(page, "The same product")
    assert len(verdicts(shop)) == 1
    assert "No two products of the catalogue only read alike." in text_of(page)


def test_a_verdict_on_a_pair_can_be_undone(shop: App) -> None:
    page = press(drawn("Pairs to judge"), "Different")
    assert len(verdicts(shop)) == 1
    press(page, "Undo")
    assert verdicts(shop) == set()


def test_without_a_name_groups_are_shown_and_none_can_be_changed(shop: App) -> None:
    page = drawn("All groups", None)
    assert "3 listings are one product" in text_of(page)
    assert "Not the same" not in labels(page) and len(page.text_input) == 1


def test_a_catalogue_without_duplicates_says_so(catalogue: App) -> None:
    add(catalogue, {"A": [1]})
    assert "No two products of the catalogue are duplicates." in text_of(drawn("All groups"))


def test_undo_restores_the_verdict_before_and_refuses_what_was_decided_meanwhile(shop: App) -> None:
    decide(shop.engine, "A", "B", True, "Bo")
    changed = decide_all(shop.engine, [("A", "B"), ("A", "NONE")], False, "Ada")
    assert len(changed.recorded) == 1 and "NONE" in changed.refused[0]
    undo(shop.engine, changed.recorded)
    assert verdicts(shop) == {("A", "B", True)}
    changed = decide_all(shop.engine, [("A", "B")], False, "Ada")
    decide(shop.engine, "A", "B", True, "Cy")
    with pytest.raises(AlreadyDecided, match="A is the same as B \\(by Cy\\)"):
        undo(shop.engine, changed.recorded)


def test_two_decisions_on_one_pair_are_undone_one_after_the_other(shop: App) -> None:
    first = decide_all(shop.engine, [("A", "B")], True, "Ada").recorded
    second = decide_all(shop.engine, [("A", "B")], False, "Bo").recorded
    undo(shop.engine, second)
    [restored] = [each.verdict for each in latest_decisions(shop.engine, 9)]
    assert restored == first[0].verdict
    undo(shop.engine, first)
    assert verdicts(shop) == set()


def test_a_search_names_the_similar_listings_of_a_match(shop: App) -> None:
    [first, *_] = shop.search.search(Query(picture=photo(1), k=4, fold=True, listings=True)).matches
    assert first.product.sku in "ABC" and len(first.folded) == 2
    assert {fold.evidence for fold in first.folded} == {"words and pictures"}
    assert first.similar_count == 1 and similar_label(first) == "+3 similar listings"
    [listing] = first.similar
    assert (listing.product.sku, listing.reason) == ("D", "other pictures")
    assert listing.distance is not None and listing.distance > 0.1


def test_the_text_of_a_product_is_escaped(shop: App) -> None:
    product = shop.catalog.product("A").product
    drawn = figure_html(product, {}, "<script>")
    assert "<script>" not in drawn and "&lt;script&gt;" in drawn and "No picture" in drawn


def search() -> None:
    """The script that Streamlit runs."""
    from app.ui.views import search as search_view

    search_view.show()


def test_a_card_opens_its_similar_listings_with_their_pictures(shop: App) -> None:
    add(shop, {"Q": [1]})
    page = AppTest.from_function(search, default_timeout=300)
    page.query_params["sku"] = "Q"
    page.run()
    assert not page.exception
    page = press(page, r"\+3 similar listings *of Kestrel Marria*")
    assert not page.exception
    drawn = "\n".join(box.body for box in page.get("html"))
    assert [each.value for each in page.subheader] == [
        "The same product", "The same words, another product",
    ]  # fmt: skip
    assert "their pictures differ, distance" in drawn and "<figure class=listing><img" in drawn
