"""Fitting from which similarity on a photo has a close match."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.evaluation.close_match import (
    FALSE_ALARMS,
    MIN_ABSENT,
    MIN_PRESENT,
    AskedPhotos,
    fit_close_cut,
    fit_close_cuts,
    fit_probability,
    why_no_cut,
)

GROUPS = np.arange(200) % 10


def asked(similarities: Sequence[float], category: str = "", matched: str = "") -> AskedPhotos:
    n = len(similarities)
    return AskedPhotos(
        np.array(similarities), np.full(n, matched), np.full(n, category), np.arange(n)
    )


def test_separate_kinds_have_a_cut_off_with_few_false_alarms() -> None:
    present, absent = np.linspace(0.8, 1, 200), np.linspace(0.2, 0.6, 200)
    cut = fit_close_cut(present, absent, GROUPS, GROUPS)
    assert cut.similarity is not None and 0.6 < cut.similarity < 0.82
    assert (cut.present, cut.absent, cut.detected) == (200, 200, 1.0)
    assert cut.false_alarms is not None and cut.false_alarms <= FALSE_ALARMS
    assert cut.midpoint == pytest.approx(0.7, abs=0.03) and cut.width is not None and cut.width > 0
    assert why_no_cut(cut) is None


@given(st.randoms(use_true_random=False), st.floats(0.1, 0.5))
def test_every_cut_off_keeps_to_the_share_of_false_alarms(random: object, gap: float) -> None:
    rng = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    present, absent = rng.normal(0.8, 0.08, 200), rng.normal(0.8 - gap, 0.08, 200)
    cut = fit_close_cut(present, absent, GROUPS, GROUPS)
    if cut.similarity is not None:
        assert cut.false_alarms is not None and cut.detected is not None
        assert cut.false_alarms <= FALSE_ALARMS
        assert cut.detected >= 9 * cut.false_alarms
        assert np.mean(present < cut.similarity) <= FALSE_ALARMS


def test_further_photos_of_present_products_are_below_the_cut_off_in_at_most_5_percent() -> None:
    """Of catalogues drawn at random: the cut-off of evenly distributed similarities is the share
    of further ones below it. Without a margin it would be too large in about half."""
    random = np.random.default_rng(2)
    groups = np.arange(400) % 40
    shares = [
        fit_close_cut(random.random(400), np.full(400, -0.1), groups, groups).similarity
        for _ in range(200)
    ]
    too_large = [share is not None and share > FALSE_ALARMS for share in shares]
    assert np.mean(too_large) <= 0.08
    assert np.mean([share or 0 for share in shares]) > 0.02


def test_the_shares_are_measured_on_groups_that_were_not_fitted_on() -> None:
    """Each group is lower than all others, so what fits the others fails on the lowest."""
    groups = np.repeat(np.arange(5), 40)
    present = np.repeat([0.5, 0.6, 0.7, 0.8, 0.9], 40)
    cut = fit_close_cut(present, np.full(200, 0.1), groups, groups)
    assert cut.similarity is None
    assert "at 5% false alarms" in str(why_no_cut(cut))


@pytest.mark.parametrize(
    ("present", "absent", "says"),
    [
        (MIN_PRESENT - 1, 100, f"39 photos of products could be asked, at least {MIN_PRESENT}"),
        (100, MIN_ABSENT - 1, f"19 photos could be asked without .* at least {MIN_ABSENT}"),
        (0, 0, "0 photos of products"),
    ],
)
def test_too_few_photos_give_no_cut_off_but_a_reason(present: int, absent: int, says: str) -> None:
    groups = np.arange(present), np.arange(absent)
    cut = fit_close_cut(np.full(present, 0.9), np.full(absent, 0.1), *groups)
    assert (cut.similarity, cut.present, cut.absent) == (None, present, absent)
    assert re.search(says, str(why_no_cut(cut)))


def test_equal_kinds_and_absent_products_that_are_more_similar_have_no_cut_off() -> None:
    random = np.random.default_rng(3)
    assert fit_close_cut(random.random(200), random.random(200), GROUPS, GROUPS).similarity is None
    low_and_high = np.repeat([0.1, 1.0], 100)
    cut = fit_close_cut(np.full(200, 0.3), low_and_high, GROUPS, GROUPS[np.argsort(GROUPS)])
    assert cut.similarity is None


def test_the_probability_crosses_one_half_between_the_kinds() -> None:
    random = np.random.default_rng(5)
    midpoint, width = fit_probability(random.normal(0.8, 0.1, 500), random.normal(0.4, 0.1, 500))
    assert midpoint == pytest.approx(0.6, abs=0.02)
    # Two normal distributions of one deviation d and a distance g of means: the width is d * d / g.
    assert width == pytest.approx(0.1 * 0.1 / 0.4, rel=0.3)


def test_a_category_has_its_own_cut_off_where_its_matches_suffice() -> None:
    hats, shoes = asked([0.9] * 60, "Hat", "Hat"), asked([0.7] * 60, "Shoe", "Shoe")
    absent = asked([0.8] * 60, "Shoe", "Hat"), asked([0.2] * 10, "Hat", "Shoe")
    cuts = fit_close_cuts(_joined(hats, shoes), _joined(*absent))
    assert set(cuts) == {None, "Hat"}
    assert cuts["Hat"].similarity == pytest.approx(0.9)
    assert (cuts["Hat"].present, cuts["Hat"].absent) == (60, 60)
    assert (cuts[None].present, cuts[None].absent) == (120, 70)


def test_a_category_that_the_cut_off_of_the_catalogue_serves_has_none_of_its_own() -> None:
    hats, shoes = asked([0.9] * 60, "Hat", "Hat"), asked([0.9] * 600, "Shoe", "Shoe")
    absent = asked([0.2] * 60, "Shoe", "Hat"), asked([0.2] * 600, "Hat", "Shoe")
    assert set(fit_close_cuts(_joined(hats, shoes), _joined(*absent))) == {None}
    low = asked([0.5] * 30 + [0.9] * 30, "Hat", "Hat")
    cuts = fit_close_cuts(_joined(low, *[shoes] * 2), _joined(*absent))
    assert cuts[None].similarity == pytest.approx(0.9)
    assert set(cuts) == {None, "Hat"} and cuts["Hat"].similarity == pytest.approx(0.5)


def _joined(*parts: AskedPhotos) -> AskedPhotos:
    return AskedPhotos(
        np.concatenate([part.similarities for part in parts]),
        np.concatenate([part.matched for part in parts]),
        np.concatenate([part.categories for part in parts]),
        np.concatenate([part.products for part in parts]),
    )
