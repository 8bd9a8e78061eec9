"""The simulation of large catalogues: queues, sums, inputs, and the tables of the guide."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest

from bench.cluster import inputs, simulation
from bench.cluster.inputs import INPUTS, LEVELS, values
from bench.cluster.scatter import Duration, Parts, rate_at, search_of, times
from support.paths import REPO

NO_TIME = Duration(0.0, 0.0)
SCALING = (REPO / "docs" / "scaling.md").read_text(encoding="utf-8")


def test_one_part_alone_takes_as_long_as_its_search() -> None:
    part = Parts(1, 1, Duration(7.0, 7.0), NO_TIME, 0.0)
    assert times(part, 0.001, 50, seed=1) == pytest.approx(np.full(50, 7.0))


def test_a_busy_part_makes_queries_wait_as_long_as_theory_says() -> None:
    """M/D/1: half as long as a search, at half load."""
    part = Parts(1, 1, Duration(10.0, 10.0), NO_TIME, 0.0)
    waited = times(part, rate_at(part, 0.5), 6_000, seed=3) - 10.0
    assert waited.mean() == pytest.approx(5.0, rel=0.15)


def test_the_slowest_of_more_parts_is_slower_and_more_load_makes_all_slower() -> None:
    def p99(count: int, load: float) -> float:
        parts = Parts(count, 1, search_of(5.0), Duration(3.2, 13.0), 0.005)
        return float(np.percentile(times(parts, rate_at(parts, load), 500, seed=5), 99))

    assert p99(1, 0.3) < p99(10, 0.3) < p99(100, 0.3)
    assert p99(10, 0.1) < p99(10, 0.5) < p99(10, 0.9)


def test_the_same_seed_gives_the_same_times() -> None:
    parts = Parts(8, 2, search_of(5.0), Duration(3.2, 13.0), 0.005)
    one, same, other = (times(parts, 100.0, 200, seed) for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_a_duration_has_its_percentiles() -> None:
    drawn = Duration(3.2, 13.0).draw(np.random.default_rng(1), 100_000)
    assert np.percentile(drawn, [50, 99]) == pytest.approx([3.2, 13.0], rel=0.03)
    assert drawn.mean() == pytest.approx(Duration(3.2, 13.0).mean, rel=0.03)


NOT_GROWING = {"queries_a_core", "days_to_freeze"}
CONSTANT = {"cores_a_card", "log_mb_s", "replica_share"}


@pytest.mark.parametrize("pictures", [1, 3])
def test_more_products_need_more_of_everything(pictures: int) -> None:
    plans = [simulation.plan(rows, pictures, "likely") for rows in simulation.ROWS]
    for smaller, larger in pairwise(plans):
        for name in simulation.Plan.__slots__:
            before, after = getattr(smaller, name), getattr(larger, name)
            if name in CONSTANT:
                assert after == pytest.approx(before, rel=0.02), name
            elif name in NOT_GROWING:
                assert after < before, name
            else:
                assert after >= before, name


@pytest.mark.parametrize("rows", simulation.ROWS)
def test_what_is_likely_is_between_the_good_and_the_bad(rows: int) -> None:
    good, likely, bad = (simulation.plan(rows, 1, level) for level in LEVELS)
    for name in set(simulation.Plan.__slots__) - CONSTANT - NOT_GROWING:
        assert getattr(good, name) <= getattr(likely, name) <= getattr(bad, name), name


def test_the_database_is_the_sum_of_its_tables() -> None:
    v = values("likely")
    names = ("picture_bytes", "thumbnail_bytes", "embedding_bytes", "fallback_bytes")
    expected = 5 * v["product_bytes"] + 7 * sum(v[name] for name in names)
    assert simulation.database_bytes(v, 5, 7) == pytest.approx(expected)


def test_parts_divide_the_rows_and_repeat_the_lists() -> None:
    v = values("likely")
    one, ten = (simulation.search_ms(v, 10**9, 63_245, count) for count in (1, 10))
    lists = simulation.search_ms(v, 0, 63_245, 1)
    assert 10 * (ten - lists) == pytest.approx(one - lists)
    count = simulation.part_count(v, 10**9, 63_245)
    assert simulation.search_ms(v, 10**9, 63_245, count) - lists <= simulation.PART_MS


def test_every_input_has_a_source_and_bounds_around_what_is_likely() -> None:
    assert len({each.name for each in INPUTS}) == len(INPUTS)
    for each in INPUTS:
        low, high = sorted((each.good, each.bad))
        assert 0 <= low <= each.likely <= high, each.name
        for module in re.findall(r"bench(?:\.\w+)+", each.source):
            assert (REPO / f"{module.replace('.', '/')}.py").exists(), each.source
        for page in re.findall(r"docs/\S+\.md", each.source):
            assert (REPO / page).exists(), each.source
        for number in re.findall(r"decisions? (\d+)", each.source):
            assert list((REPO / "docs/decisions").glob(f"{int(number):04}-*.md")), each.source


@pytest.mark.parametrize("pictures", [1, 3])
def test_the_guide_has_the_tables_that_the_simulation_prints(pictures: int) -> None:
    assert "\n".join(simulation.table(simulation.ROWS, pictures)) in SCALING


def test_the_guide_has_the_inputs_of_the_simulation() -> None:
    assert "\n".join(inputs.table()) in SCALING
