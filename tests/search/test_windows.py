"""The windows of a photo, and the suppression of overlapping ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.search.regions import best_windows, choose_windows
from app.search.windows import (
    MAX_COMMON,
    TILES,
    Windows,
    common_share,
    is_on_grid,
    likeness,
    nominating,
    on_grid,
    overlaps,
    suppress,
    window_grid,
)
from app.types import EmbeddingRows, Model, Vector, Vectors
from app.vectors import unit_rows

SIZES = [(400, 400), (400, 300), (300, 400), (1600, 900), (5000, 10), (1, 1)]


@pytest.mark.parametrize("size", SIZES)
def test_windows_lie_inside_the_photo_and_cover_it(size: tuple[int, int]) -> None:
    windows = np.array(window_grid(size))
    assert len(np.unique(windows, axis=0)) == len(windows)
    assert windows.min() >= 0 and windows.max() <= 1
    assert (windows[:, 2:] - windows[:, :2]).min() > 0.1
    points = np.linspace(0.01, 0.99, 25)
    for x in points:
        for y in points:
            inside = (windows[:, 0] <= x) & (x <= windows[:, 2])
            assert (inside & (windows[:, 1] <= y) & (y <= windows[:, 3])).any()


def test_the_number_of_windows_is_bounded() -> None:
    assert all(100 <= len(window_grid(size)) <= 500 for size in SIZES)


@pytest.mark.parametrize("size", SIZES)
def test_pictures_are_nominated_for_a_fifth_of_the_windows_one_step_from_any_inside(
    size: tuple[int, int],
) -> None:
    windows = np.array(window_grid(size))
    asking = nominating(window_grid(size))
    assert len(windows) / 6 < len(asking) < len(windows) / 4
    first_of_shapes = np.flatnonzero((windows[:, :2] == 0).all(axis=1))
    for own in np.split(np.arange(len(windows)), first_of_shapes[1:]):
        columns, rows = (np.unique(windows[own, edge]) for edge in (0, 1))
        asks = np.isin(own, asking).reshape(len(columns), len(rows))
        steps = np.pad(asks, 1)
        near = steps[:-2, 1:-1] | steps[2:, 1:-1] | steps[1:-1, :-2] | steps[1:-1, 2:] | asks
        assert near[1:-1, 1:-1].all()


class Given:
    """A catalogue of one picture, and how many windows pictures were nominated for."""

    def __init__(self, picture: Vector, revision: str) -> None:
        self.model = Model(1, "embedded", revision, len(picture), "")
        self.picture = picture
        self.asked: list[int] = []

    def nearest(self, whole: Vector) -> Sequence[float]:
        return [0.0]

    def pictures(self, near: Vectors) -> EmbeddingRows:
        self.asked.append(len(near))
        return self.picture[np.newaxis].astype(np.float16)


@pytest.mark.parametrize("revision", ["1-a", "2-a"])
def test_a_picture_is_compared_with_all_windows_and_nominated_for_some(revision: str) -> None:
    grid, random = window_grid((400, 300)), np.random.default_rng(4)
    windows = Windows(grid, unit_rows(random.normal(size=(len(grid), 32))), 0.0)
    [whole] = unit_rows(random.normal(size=(1, 32)))
    for index in np.setdiff1d(np.arange(0, len(grid), 7), nominating(grid)):
        given = Given(windows.vectors[index], revision)
        chosen = best_windows(given, windows, whole)
        assert chosen is not None and chosen[0].index == index
        assert given.asked == [len(nominating(grid))]


def test_the_overlap_is_the_common_part_of_the_union() -> None:
    square = (0.0, 0.0, 0.5, 0.5)
    others = [square, (0.25, 0.0, 0.75, 0.5), (0.5, 0.5, 1.0, 1.0)]
    assert overlaps(square, others) == pytest.approx([1, 1 / 3, 0])
    assert common_share(square, [*others, (0.1, 0.1, 0.2, 0.2)]) == pytest.approx([1, 0.5, 0, 1])


def test_tiles_divide_the_photo_and_are_alike_as_far_as_their_vectors_agree() -> None:
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in TILES]
    assert len(TILES) == 36 and sum(areas) == pytest.approx(1)
    same, other = np.eye(2, dtype=np.float32)
    assert likeness(np.stack([same] * 4)) == pytest.approx(1)
    assert likeness(np.stack([same, other])) == pytest.approx(0.5)


def test_the_border_is_seen_by_the_small_windows_that_touch_an_edge() -> None:
    regions = [
        (0.0, 0.2, 0.4, 0.6),
        (0.6, 0.6, 1.0, 1.0),
        (0.3, 0.3, 0.7, 0.7),
        (0.0, 0.0, 1.0, 0.9),
    ]
    regions += [(0.0, 0.0, 0.9, 1.0)] * 3
    whole, other = np.eye(2, dtype=np.float32)
    windows = Windows(regions, np.stack([whole, other, other, *[other] * 4]), 0.0)
    assert windows.border_likeness(whole) == pytest.approx(0.5)
    assert windows.border_likeness(other) == pytest.approx(0.5)


scores = st.lists(st.floats(-1, 1), min_size=20, max_size=20)


@given(scores=scores, count=st.integers(1, 5))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_suppression_keeps_the_best_and_nothing_that_overlaps_a_better_one(
    scores: list[float], count: int
) -> None:
    windows = window_grid((400, 300))[:20]
    kept = suppress(windows, scores, count)
    assert scores[kept[0]] == max(scores) and len(kept) <= count
    for place, index in enumerate(kept):
        better = [windows[each] for each in kept[:place]]
        assert not better or common_share(windows[index], better).max() <= MAX_COMMON
    if len(kept) < count:
        for index in set(range(len(windows))) - set(kept):
            assert common_share(windows[index], [windows[each] for each in kept]).max() > MAX_COMMON


@given(edges=st.tuples(*[st.floats(0, 1)] * 4))
def test_a_box_on_the_grid_is_around_the_other_and_stays(edges: tuple[float, ...]) -> None:
    (left, right), (top, bottom) = sorted(edges[:2]), sorted(edges[2:])
    frame = on_grid((left, top, right, bottom))
    assert frame[0] <= left + 1e-5 and frame[1] <= top + 1e-5
    assert frame[2] >= right - 1e-5 and frame[3] >= bottom - 1e-5
    assert is_on_grid(frame)
    if frame[0] < frame[2] and frame[1] < frame[3]:
        assert on_grid(frame) == frame
        percent = tuple(round(100 * edge) / 100 for edge in frame)
        assert is_on_grid(percent)  # type: ignore[arg-type]


def test_round_numbers_are_not_on_the_grid() -> None:
    assert not any(is_on_grid(box) for box in [(0.1, 0.2, 0.6, 0.9), (0.0, 0.0, 0.5, 1.0)])


def test_the_frame_of_an_object_is_that_of_the_good_windows_around_it() -> None:
    regions = [
        (0.2, 0.2, 0.6, 0.6), (0.3, 0.2, 0.7, 0.6), (0.2, 0.3, 0.6, 0.7), (0.3, 0.3, 0.7, 0.7),
        (0.25, 0.1, 0.65, 0.5), (0.8, 0.8, 1.0, 1.0),
    ]  # fmt: skip
    scores = np.array([0.5, 0.45, 0.45, 0.4, 0.3, 0.2])
    first, second = choose_windows(regions, scores, 2)
    assert first.index == 0 and first.frame == (0.22, 0.22, 0.67, 0.67)
    assert (second.index, second.frame) == (5, (0.77, 0.77, 1.0, 1.0))
