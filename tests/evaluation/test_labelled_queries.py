"""Evaluation: exact metrics of cases that are small enough to calculate by hand."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from app.bootstrap import App
from app.errors import BadSource
from app.evaluation.html_report import comparison_report, evaluation_report
from app.evaluation.labelled_queries import cases, compare, evaluate, read_queries
from app.evaluation.metrics import (
    Evaluation,
    QueryOutcome,
    compare_ranks,
    most_different,
    newcombe,
    read_ranks,
    wilson,
    worst,
)
from app.search.filters import parse
from app.types import Query
from support.colours import photo
from support.shop import add, numbered


@pytest.fixture
def queries(tmp_path: Path) -> Path:
    return tmp_path / "queries.csv"


def figures(
    app: App, queries: Path, lines: list[tuple[str, str]], *filters: str
) -> tuple[Evaluation, list[str]]:
    """The evaluation of (query, expected sku), and the warnings."""
    queries.write_text("query,expected_sku\n" + "".join(f"{q},{sku}\n" for q, sku in lines))
    told: list[str] = []
    found = evaluate(
        app.engine,
        app.search,
        read_queries(queries),
        Query(filters=parse(list(filters))),
        told.append,
    )
    return found, told


def ranked(app: App, seed: int) -> list[str]:
    """All skus, most similar to a photo first."""
    return [m.product.sku for m in app.search.search(Query(picture=photo(seed), k=30)).matches]


def test_the_metrics_of_a_small_case_are_exact(app: App, queries: Path) -> None:
    add(app, numbered(30))
    (queries.parent / "q.png").write_bytes(photo(0))
    skus = ranked(app, 0)
    # Expected at ranks 1, 2, 5, 10 and 11: the last one is not among the first ten.
    found, told = figures(app, queries, [("q.png", skus[rank - 1]) for rank in (1, 2, 5, 10, 11)])
    assert (found.queries, found.filtered_out, found.unreadable, told) == (5, 0, 0, [])
    assert (found.recall_at_1, found.recall_at_5, found.recall_at_10) == (0.2, 0.6, 0.8)
    assert found.mrr == pytest.approx((1 + 1 / 2 + 1 / 5 + 1 / 10) / 5, abs=1e-12)
    assert 0 < found.p50_ms <= found.p95_ms


def test_queries_whose_product_does_not_pass_the_filter_are_left_out(
    app: App, queries: Path
) -> None:
    add(app, {"RED": [1]}, attributes={"packaged": "1"})
    add(app, {"BLUE": [2]}, attributes={"packaged": "0"})
    (queries.parent / "1.png").write_bytes(photo(1))
    (queries.parent / "2.png").write_bytes(photo(2))
    lines = [("1.png", "RED"), ("2.png", "BLUE"), ("2.png", "RED")]
    found, _ = figures(app, queries, lines, "packaged=1")
    # Only RED passes the filter, so it comes first for every query.
    assert (found.queries, found.filtered_out, found.recall_at_1) == (2, 1, 1.0)


def test_failed_queries_are_counted_separately_and_reported(app: App, queries: Path) -> None:
    add(app, {"A": [1]})
    (queries.parent / "1.png").write_bytes(photo(1))
    (queries.parent / "bad.png").write_bytes(b"no picture")
    lines = [("1.png", "A"), ("bad.png", "A"), ("none.png", "A"), ("1.png", "UNKNOWN")]
    found, told = figures(app, queries, lines)
    assert (found.queries, found.unreadable, found.recall_at_1) == (1, 3, 1.0)
    assert [line.split(":")[0] for line in told] == [
        "line 3, bad.png", "line 4, none.png", "line 5, 1.png"
    ]  # fmt: skip
    assert "no product has the sku 'UNKNOWN'" in told[2]


@pytest.mark.parametrize("name", ["folder", "pipe.png"])
def test_a_query_that_is_not_a_file_counts_as_failed_without_blocking(
    app: App, queries: Path, name: str
) -> None:
    add(app, {"A": [1]})
    (queries.parent / "1.png").write_bytes(photo(1))
    (queries.parent / "folder").mkdir()
    os.mkfifo(queries.parent / "pipe.png")
    found, told = figures(app, queries, [("1.png", "A"), (name, "A")])
    assert (found.queries, found.unreadable, len(told)) == (1, 1, 1)


def test_it_is_an_error_if_all_queries_fail(app: App, queries: Path) -> None:
    add(app, {"A": [1]})
    with pytest.raises(BadSource, match="None of the queries"):
        figures(app, queries, [("none.png", "A")])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "columns query and expected_sku"),
        (b"query\n1.png\n", "columns query and expected_sku"),
        (b"query,expected_sku\n", "no queries"),
        (b"query,expected_sku\n1.png,\n", "line 2"),
        (b"query,expected_sku\n1.png\n", "line 2"),
        (b"query,expected_sku\n1.png,A\0\n", "line 2: a field holds a NUL"),
        (b"query,expected_sku\n\0.png,A\n", "line 2: a field holds a NUL"),
        (photo(1), "not a CSV file in UTF-8"),
        (b'query,expected_sku\n"1.png,A\n', "not a CSV file"),
    ],
    ids=["empty", "column", "header", "no sku", "short", "nul", "nul name", "png", "quote"],
)
def test_an_unusable_file_of_queries_is_refused_with_the_reason(
    queries: Path, data: bytes, says: str
) -> None:
    queries.write_bytes(data)
    with pytest.raises(BadSource, match=says):
        read_queries(queries)


def test_a_missing_file_of_queries_is_refused(queries: Path) -> None:
    with pytest.raises(BadSource, match="No such file"):
        read_queries(queries)


def test_queries_with_a_byte_order_mark_and_other_columns_are_read(queries: Path) -> None:
    queries.write_text("note,expected_sku,query\nx,A,1.png\n", encoding="utf-8-sig")
    (found,) = read_queries(queries)
    assert (found.line, found.picture, found.expected_sku) == (2, queries.parent / "1.png", "A")


@pytest.mark.parametrize(
    ("found", "asked", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_the_interval_of_a_share_is_that_of_wilson(
    found: int, asked: int, low: float, high: float
) -> None:
    """The last by R. Newcombe, Statistics in Medicine 17 (1998), example 1."""
    assert wilson(found, asked) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_metrics_by_category_are_those_of_its_queries(app: App, queries: Path) -> None:
    add(app, {"A": [1], "B": [2]}, category="coat")
    add(app, {"C": [3]}, category="lamp")
    add(app, {"D": [4]})
    for number in range(1, 5):
        (queries.parent / f"{number}.png").write_bytes(photo(number))
    lines = [("1.png", "A"), ("2.png", "A"), ("3.png", "C"), ("4.png", "D")]
    found, _ = figures(app, queries, lines)
    assert [(c.category, c.queries, c.recall_at_1) for c in found.categories] == [
        ("coat", 2, 0.5), (None, 1, 1.0), ("lamp", 1, 1.0)
    ]  # fmt: skip


def test_a_product_folded_into_another_counts_as_found(app: App, queries: Path) -> None:
    for year in (2020, 2021, 2022):
        add(app, {f"Y{year}": [1]}, year=year, brand="b")
    with app.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE product SET title = 'Long coat'")
    (queries.parent / "1.png").write_bytes(photo(1))
    queries.write_text("query,expected_sku\n1.png,Y2022\n")
    asked = read_queries(queries)
    plain = evaluate(app.engine, app.search, asked, Query(), print)
    folded = evaluate(app.engine, app.search, asked, Query(fold=True), print)
    near = evaluate(app.engine, app.search, asked, Query(near_query=2.0), print)
    assert plain.recall_at_1 == 0.0 and plain.folded_per_page == 0
    assert folded.recall_at_1 == 1.0 and folded.folded_per_page == 2
    assert near.recall_at_10 == 0.0 and near.dropped_per_page == 3
    beside = compare(folded, plain.ranks)
    assert (beside.better, beside.worse, beside.same, beside.recall_at_1) == (1, 0, 0, 1.0)
    with pytest.raises(BadSource, match="no query in common"):
        compare(folded, {("other.png", "Y2022"): 1})


def test_a_comparison_uses_common_queries_only_and_has_intervals() -> None:
    ours = {("q", str(n)): 1 if n < 60 else None for n in range(100)} | {("only", "here"): 1}
    theirs = {("q", str(n)): 1 if n < 50 else 7 for n in range(100)} | {("only", "there"): None}
    found = compare_ranks(ours, theirs)
    assert (found.queries, found.better, found.worse, found.same) == (100, 10, 40, 50)
    assert found.recall_at_1 == pytest.approx(0.1)
    assert 0.02 < found.recall_at_1_low < 0.1 < found.recall_at_1_high < 0.18
    assert found.recall_at_10 == pytest.approx(-0.4) and found.recall_at_10_high < 0


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((36, 14, 0, 0), 0.1528, 0.4167),
        ((54, 0, 0, 0), -0.0664, 0.0664),
    ],
)
def test_the_interval_of_a_difference_is_that_of_newcombe(
    counts: tuple[int, int, int, int], low: float, high: float
) -> None:
    """Method 10; the interval has a width even if the runs never differ."""
    assert newcombe(*counts) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_ranks_are_read_back_from_the_json(app: App, queries: Path) -> None:
    add(app, {"A": [1], "B": [2]})
    (queries.parent / "1.png").write_bytes(photo(1))
    found, _ = figures(app, queries, [("1.png", "A"), ("1.png", "B")])
    assert read_ranks(json.loads(json.dumps(found.as_dict()))) == found.ranks
    assert found.ranks == {("1.png", "A"): 1, ("1.png", "B"): 2}
    for document in ([], {"outcomes": [{"query": "x"}]}, {"outcomes": 3}, 7):
        with pytest.raises(ValueError, match="no outcomes"):
            read_ranks(document)
    for rank in (0, -3, 1.9, 11, float("inf"), True, "1"):
        with pytest.raises(ValueError, match="is no rank"):
            read_ranks({"outcomes": [{"query": "x", "expected_sku": "y", "rank": rank}]})


def test_queries_are_identified_by_photo_and_sku_and_repeated_ones_refused(
    app: App, queries: Path
) -> None:
    assert QueryOutcome("a b", "c", None, 1, 1.0).key != QueryOutcome("a", "b c", None, 1, 1.0).key
    queries.write_text("query,expected_sku\n1.png,A\n1.png,B\n1.png,A\n")
    with pytest.raises(BadSource, match="line 4: the same as line 2"):
        read_queries(queries)


def test_the_worst_queries_come_first_and_successful_ones_are_left_out() -> None:
    asked = [QueryOutcome(str(rank), "A", None, rank, 1.0) for rank in (1, 3, None, 2, 1)]
    assert [outcome.rank for outcome in worst(asked, 9)] == [None, 3, 2]
    assert [outcome.rank for outcome in worst(asked, 1)] == [None]


def test_the_report_is_self_contained_and_escapes_text(app: App, queries: Path) -> None:
    add(app, {"A": [1], "B": [2]}, category="<i>coat</i>")
    with app.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE product SET title = '<script>alert(1)</script>'")
    (queries.parent / "1.png").write_bytes(photo(1))
    queries.write_text("query,expected_sku\n1.png,B\n")
    asked = read_queries(queries)
    found = evaluate(app.engine, app.search, asked, Query(), print)
    shown = cases(app.engine, app.search, app.sandbox.decode, asked, found.outcomes, Query())
    [case] = shown
    assert [match.product.sku for match in case.found] == ["A", "B"]
    assert case.similarity == pytest.approx(case.found[1].similarity)
    page = evaluation_report("the & title", found, shown, compare(found, found.ranks))
    assert "<script" not in page and "<i>" not in page and "&lt;script&gt;" in page
    assert page.count("data:image/jpeg;base64,") == 4
    assert "http" not in page and "B came 2." in page


def outcome(query: str, rank: int | None, *found: str) -> QueryOutcome:
    return QueryOutcome(query, "A", None, rank, 1.0, found=found)


def test_the_most_different_answers_come_first() -> None:
    ours = [outcome("same", 1, "A", "B"), outcome("others", 1, "A", "B"), outcome("bad", None),
            outcome("lost", None), outcome("later", 2), outcome("only here", 3)]  # fmt: skip
    theirs = [outcome("bad", None), outcome("lost", 1), outcome("later", 1),
              outcome("others", 1, "A", "C"), outcome("same", 1, "A", "B")]  # fmt: skip
    names = [(one.query, two.query) for one, two in most_different(ours, theirs, 9)]
    assert names == [(name, name) for name in ("lost", "later", "bad", "others")]
    assert [one.query for one, _ in most_different(ours, theirs, 1)] == ["lost"]
    assert most_different(ours[:1], theirs, 9) == []


def test_the_report_of_two_models_shows_the_matches_of_both(app: App, queries: Path) -> None:
    add(app, {"A": [1], "B": [2]}, category="coat")
    with app.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE product SET title = '<b>' || sku || '</b>'")
    (queries.parent / "1.png").write_bytes(photo(1))
    queries.write_text("query,expected_sku\n1.png,A\n")
    asked = read_queries(queries)
    found = evaluate(app.engine, app.search, asked, Query(), print)
    [case] = cases(app.engine, app.search, app.sandbox.decode, asked, found.outcomes, Query())
    other = replace(case, outcome=replace(case.outcome, rank=None), found=case.found[::-1])
    page = comparison_report(
        ("<new>", "old"), (found, found), [(case, other)], compare(found, found.ranks)
    )
    assert page.count("<!doctype html>") == 1 and page.count("1.png: A") == 1
    new, old = page.index("&lt;new&gt;: came 1"), page.index("old: did not come among the first")
    titles = ["1. &lt;b&gt;A", "2. &lt;b&gt;B"]
    places = [page.index(title, new) for title in titles]
    later = [page.index(title, old) for title in reversed(titles)]
    assert new < places[0] < places[1] < old < later[0] < later[1]
    assert page.count("data:image/jpeg;base64,") == 7
    assert "<b>" not in page and "http" not in page


def test_queries_may_be_words_alone_or_beside_a_photo(app: App, queries: Path) -> None:
    add(app, numbered(5), category="Lamp")
    add(app, {"KETTLE": [30]}, category="Kettle")
    (queries.parent / "q.png").write_bytes(photo(2))
    queries.write_text(
        "query,words,expected_sku\n,kettles,KETTLE\nq.png,,P0002\nq.png,kettle,KETTLE\n"
    )
    asked = read_queries(queries)
    assert [each.name for each in asked] == ["kettles", "q.png", "q.png + kettle"]
    found = evaluate(app.engine, app.search, asked, Query(words_weight=1.0), pytest.fail)
    assert [outcome.rank for outcome in found.outcomes] == [1, 1, 1]
    shown = cases(app.engine, app.search, app.sandbox.decode, asked, found.outcomes, Query())
    assert [case.photo is None for case in shown] == [True, False, False]
    assert "kettles" in evaluation_report("words", found, shown)


def test_a_query_needs_a_photo_or_words(queries: Path) -> None:
    queries.write_text("query,words,expected_sku\n, ,A\n")
    with pytest.raises(BadSource, match="line 2: expected_sku is empty, or both query and words"):
        read_queries(queries)
