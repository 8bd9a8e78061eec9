"""Fitting the cut-offs of similarity labels to distances of labelled pairs."""

from __future__ import annotations

from itertools import pairwise
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.evaluation.calibration import (
    LIKELY_PRECISION,
    MIN_PAIRS,
    STRICT_PRECISION,
    LabelledPair,
    expected_agreement,
    fit_calibrations,
    fit_cut_off,
    fit_same_product,
    make_monotonic,
    missing_reason,
)
from app.types import Calibration, CutOff, label_for

distances = st.lists(st.floats(0, 2, allow_subnormal=False), min_size=MIN_PAIRS, max_size=80)

cuts = st.one_of(st.none(), st.floats(0, 2))


def row(category: str | None, *cut_offs: float | None) -> Calibration:
    return Calibration(category, *(CutOff(cut, 20, 20) for cut in cut_offs))


@given(distances, distances, st.sampled_from([LIKELY_PRECISION, STRICT_PRECISION]))
def test_a_cut_off_has_the_required_precision_and_separates_the_kinds(
    pairs: list[float], others: list[float], precision: float
) -> None:
    cut = fit_cut_off(pairs, others, precision).distance
    if cut is not None:
        tpr, fpr = np.mean(np.array(pairs) <= cut), np.mean(np.array(others) <= cut)
        assert 0 <= cut <= 2 and tpr > fpr
        assert tpr / (tpr + fpr) >= precision - 1e-9


@given(distances, distances, st.randoms())
def test_the_order_of_the_pairs_does_not_matter(
    pairs: list[float], others: list[float], random: Any
) -> None:
    found = fit_cut_off(pairs, others)
    random.shuffle(pairs)
    random.shuffle(others)
    assert fit_cut_off(pairs, others) == found


@given(
    st.lists(st.floats(0, 0.5), min_size=MIN_PAIRS, max_size=60),
    st.lists(st.floats(0.6, 2), min_size=MIN_PAIRS, max_size=60),
    st.sampled_from([LIKELY_PRECISION, STRICT_PRECISION]),
)
def test_the_cut_off_of_separate_kinds_is_in_the_middle(
    pairs: list[float], others: list[float], precision: float
) -> None:
    found = fit_cut_off(pairs, others, precision)
    assert found.distance == pytest.approx((max(pairs) + min(others)) / 2)
    assert (found.pairs, found.others) == (len(pairs), len(others))


@pytest.mark.parametrize(("pairs", "others"), [(MIN_PAIRS - 1, 50), (50, MIN_PAIRS - 1), (0, 0)])
def test_too_few_pairs_give_no_cut_off_but_a_reason(pairs: int, others: int) -> None:
    found = fit_cut_off([0.1] * pairs, [1.0] * others)
    assert found == CutOff(None, pairs, others)
    assert f"at least {MIN_PAIRS} are needed" in str(missing_reason(found))


def test_equal_distributions_rarely_have_a_cut_off() -> None:
    random = np.random.default_rng(1)
    found = [fit_cut_off(random.random(50), random.random(300)) for _ in range(500)]
    assert sum(cut.distance is not None for cut in found) <= 10
    assert "no distance tells" in str(next(filter(None, map(missing_reason, found))))


def test_positive_pairs_that_are_farther_apart_give_no_cut_off() -> None:
    assert fit_cut_off([1.0] * 50, [0.1] * 50).distance is None


def test_a_higher_precision_gives_a_smaller_cut_off() -> None:
    pairs = np.concatenate([np.linspace(0, 0.2, 60), np.linspace(0.3, 0.5, 40)])
    others = np.concatenate([np.linspace(0.3, 0.5, 30), np.linspace(0.8, 1, 70)])
    assert fit_cut_off(pairs, others, STRICT_PRECISION).distance == pytest.approx(0.28, abs=0.07)
    assert fit_cut_off(pairs, others, LIKELY_PRECISION).distance == pytest.approx(0.55, abs=0.1)


def test_same_product_is_widened_to_where_nearly_all_pairs_are_expected_to_agree() -> None:
    quantiles = [NormalDist().inv_cdf((n + 0.5) / 40) for n in range(40)]
    pairs, others = np.exp(-3 + 0.5 * np.array(quantiles)), np.linspace(0.09, 0.6, 300)
    expected = expected_agreement(pairs)
    strict = fit_cut_off(pairs, others, STRICT_PRECISION).distance
    assert strict is not None and strict < expected
    assert fit_same_product(pairs, others).distance == pytest.approx(expected)
    near = np.concatenate([np.linspace(0.09, 0.15, 150), np.linspace(0.3, 0.6, 150)])
    cut = fit_same_product(pairs, near).distance
    assert cut is not None and cut < expected, "too many other products are within that"
    assert (pairs <= cut).mean() >= 4 * (near <= cut).mean()


def test_few_or_equal_pairs_are_expected_to_agree_within_the_farthest() -> None:
    assert expected_agreement([0.0, 0.0, 0.2]) == 0.2
    assert expected_agreement([0.1, 0.1, 0.1]) == pytest.approx(0.1)


@given(cuts, cuts, cuts, st.floats(0, 2))
def test_cut_offs_never_decrease_and_that_changes_no_label(
    photo: float | None, product: float | None, similar: float | None, distance: float
) -> None:
    before = row(None, photo, product, similar)
    after = make_monotonic(before)
    found = [cut.distance for cut in (after.same_photo, after.same_product, after.similar)]
    known = [cut for cut in found if cut is not None]
    assert all(a <= b for a, b in pairwise(known))
    assert label_for(distance, None, {None: before}) == label_for(distance, None, {None: after})


def test_the_label_is_the_strongest_that_holds_and_categories_have_their_own() -> None:
    rows = {None: row(None, 0.1, 0.2, 0.5), "Hat": row("Hat", None, 0.3, 0.4)}
    said = {d: label_for(d, "Shoe", rows) for d in (0.1, 0.15, 0.4, 0.6)}
    assert said == {0.1: "same photo", 0.15: "same product", 0.4: "similar", 0.6: None}
    said = {d: label_for(d, "Hat", rows) for d in (0.1, 0.25, 0.4, 0.45)}
    assert said == {0.1: "same photo", 0.25: "same product", 0.4: "similar", 0.45: None}
    assert label_for(0.0, "Hat", {}) is None


def test_only_categories_with_their_own_cut_off_have_a_row() -> None:
    pairs = [
        LabelledPair("same product", holds, category, 0.1 if holds else 1.0)
        for category, count in (("B", MIN_PAIRS), ("A", MIN_PAIRS), ("C", MIN_PAIRS - 1), (None, 3))
        for holds in (True, False)
        for _ in range(count)
    ]
    found = fit_calibrations(pairs)
    assert [found_row.category for found_row in found] == [None, "A", "B"]
    assert found[0].same_product == CutOff(pytest.approx(0.55), 62, 62)
    assert found[0].same_photo == CutOff(None, 0, 0)
