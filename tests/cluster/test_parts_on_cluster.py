"""Builds in parts that are searched by actors on a Ray cluster, while these and nodes are lost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import psycopg
import pytest

from app.bootstrap import App
from app.cluster import actors as cluster_actors
from app.cluster import fill, job, parts
from app.cluster.portable_settings import portable
from app.cluster.session import Cluster
from app.config import Settings
from app.index import part_builder
from app.index.parted_index import PartedIndex
from app.types import Filters, Query
from support import random_catalogue
from support.concurrency import wait_until
from support.held_part import BRIEF_S, BriefPart, HeldPart
from support.paths import REPO
from support.random_shop import random_query, refill
from support.ray_cluster import INDEX_FOLDER, NODE
from support.region_colours import choose_region_colours
from support.scenes import two
from support.two_forms import BothForms, answered, by_list, small_parts

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.ray]

FILTERS = (
    Filters(), Filters({"category": "blazer"}), Filters({"colour": "red"}),
    Filters({"brand": "Kestrel"}),
)  # fmt: skip


@pytest.fixture
def app(settings: Settings, nodes: Any) -> Iterator[App]:
    on_cluster = settings.model_copy(
        update={"search_on": nodes.address, "part_cpus": 0.01, "part_wait_s": 60.0}
    )
    with App(on_cluster, choose=choose_region_colours) as app:
        yield app


@pytest.fixture
def forms(app: App, monkeypatch: pytest.MonkeyPatch) -> BothForms:
    small_parts(monkeypatch)
    monkeypatch.setattr(parts, "PartActor", HeldPart)
    monkeypatch.setattr(parts, "RENEW_S", 1.0)
    return BothForms(app, part_rows=16)  # each part costs the start of a process


@pytest.fixture
def skus(app: App, forms: BothForms, sql: psycopg.Connection) -> list[str]:
    found = refill(app, sql, Random(5))
    app.search.open_index()
    return found


def queries(app: App, skus: list[str], count: int) -> list[Query]:
    random = Random(1)
    found = []
    for number in range(count):
        query = replace(random_query(app, random, skus), filters=FILTERS[number % len(FILTERS)])
        shown = tuple(each.product.sku for each in app.search.search(query).matches)
        found += [query, replace(query, shown=shown)]
    return found


def test_parts_that_tasks_fill_are_those_filled_here(
    app: App, cluster: Cluster, nodes: Any, sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """By several tasks a part, all in the snapshot of the build. The first test of the file: tasks
    take a whole processor, of which actors hold a share for a minute after their last search."""
    small_parts(monkeypatch)
    monkeypatch.setattr(part_builder, "BLOCK_ROWS", 30)
    monkeypatch.setattr(fill, "ID_BLOCKS", 2)
    random_catalogue.fill(app, 400)
    forms = BothForms(app, part_rows=150)
    here = forms.rebuild()
    told: list[str] = []

    def delete_some(message: str) -> None:
        if not told:
            sql.execute("DELETE FROM embedding WHERE picture_id % 3 = 0")
        told.append(message)

    described = job.describe(app, nodes.address, choose_region_colours)
    many = forms.rebuild_parts(fill.ClusterFill(cluster, described, delete_some))
    assert (many.state, many.kind, many.rows, len(told)) == ("published", here.kind, 400, 9)
    rows = [[by_list(app.files.read(file)) for file in each.files] for each in (here, many)]
    assert [len(each) for each in rows[0]] == [135, 135, 130] and rows[0] == rows[1]
    ranges = [[(part.first, part.last) for part in each.parts] for each in (here, many)]
    assert ranges[0] == ranges[1]


def test_actors_answer_as_one_file_does(
    app: App, forms: BothForms, skus: list[str], sql: psycopg.Connection
) -> None:
    asked = queries(app, skus, 16)
    asked += [Query(picture=two(), k=5), Query(picture=two(), k=12, fold=False)]
    found = [app.search.search(query) for query in asked]
    assert {"faiss", "faiss-filtered"} <= {
        each.plan.path for each in found if each.plan.build == forms.parts.id
    }
    assert not [each for each in found if each.plan.reason_code == "part"]
    assert [(len(each.regions), each.plan.build) for each in found[-2:]] == [
        (2, forms.parts.id)
    ] * 2
    with forms.only_one_file(sql):
        expected = [app.search.search(query) for query in asked]
    assert [answered(each) for each in found] == [answered(each) for each in expected]


PROGRAM = """
import sys
from app.bootstrap import App
from app.cluster import parts
from app.config import Settings
from support.region_colours import choose_region_colours
from support.held_part import BriefPart

parts.PartActor, parts.RENEW_S = BriefPart, 0.2
with App(Settings.model_validate_json(sys.argv[1]), choose=choose_region_colours) as app:
    app.search.open_index()
    print("open", flush=True)
    sys.stdin.read()
"""


def test_actors_outlive_a_killed_process_as_long_as_another_one_needs_them(
    app: App, forms: BothForms, nodes: Any, sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import ray
    from ray.util import list_named_actors

    def names() -> set[str]:
        return {each["name"] for each in list_named_actors(all_namespaces=True)}

    def processes(searcher: parts.RemoteParts) -> set[int]:
        return {ray.get(each.process.remote()) for each in searcher.connected._handles}

    monkeypatch.setattr(parts, "PartActor", BriefPart)
    monkeypatch.setattr(parts, "RENEW_S", 0.2)
    random_catalogue.fill(app, 24)
    before, build = names(), forms.rebuild()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, app.settings.model_dump_json()],
        env=os.environ | {"PYTHONPATH": f"{REPO}{os.pathsep}{REPO / 'tests'}"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as program:  # fmt: skip
        assert program.stdout is not None
        assert "open\n" in program.stdout  # Ray prints its own lines there too
        opened = names() - before
        assert len(opened) == len(build.parts)
        actors = cluster_actors.attach(nodes.address, 0.01)
        searcher = parts.RemoteParts(actors, portable(app.server_settings), build, 60.0)
        shared = processes(searcher)
        program.kill()
    killed = time.monotonic()
    wait_until(lambda: time.monotonic() > killed + 1.3 * BRIEF_S)
    assert processes(searcher) == shared and names() >= opened
    del searcher
    wait_until(lambda: not names() & opened)


def answers(app: App, asked: list[Query]) -> list[tuple[object, ...]]:
    return [answered(app.search.search(query)) for query in asked]


def a_part_is_missing(app: App, skus: list[str]) -> bool:
    plans = [app.search.search(Query(sku=sku, k=1, fold=False)).plan for sku in skus[-8:]]
    return "part" in {plan.reason_code for plan in plans}


def searcher_of(app: App, forms: BothForms) -> parts.RemoteParts:
    index = app.files.opened(forms.parts)
    assert isinstance(index, PartedIndex) and isinstance(index.searcher, parts.RemoteParts)
    return index.searcher


def test_a_late_part_a_lost_node_and_a_new_build_change_no_answer(
    app: App, forms: BothForms, skus: list[str], nodes: Any, sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    asked = queries(app, skus, 4)
    expected = answers(app, asked)
    assert not a_part_is_missing(app, skus)
    searcher = searcher_of(app, forms)

    hold = INDEX_FOLDER / "hold-0"
    hold.parent.mkdir(parents=True, exist_ok=True)
    hold.touch()
    monkeypatch.setattr(searcher, "wait_s", 0.2)
    try:
        assert answers(app, asked) == expected
        assert a_part_is_missing(app, skus)
        monkeypatch.setattr(searcher, "wait_s", 60.0)
        assert a_part_is_missing(app, skus)  # without waiting for it
    finally:
        hold.unlink()
    wait_until(lambda: not a_part_is_missing(app, skus))
    assert answers(app, asked) == expected

    calls = [searcher.connected.actors.call(each, "node") for each in searcher.connected._handles]
    places = {searcher.connected.actors.result(call) for call in calls}
    doomed = next(each for each in nodes.list_all_nodes()[1:] if each.node_id in places)
    nodes.remove_node(doomed, allow_graceful=False)
    monkeypatch.setattr(searcher, "wait_s", 0.5)
    # Processes of a node that was killed may answer for a moment.
    wait_until(lambda: a_part_is_missing(app, skus))
    assert answers(app, asked) == expected
    nodes.add_node(**NODE)
    monkeypatch.setattr(searcher, "wait_s", 10.0)
    wait_until(lambda: not a_part_is_missing(app, skus))
    assert answers(app, asked) == expected

    before = forms.parts
    sql.execute("DELETE FROM product WHERE sku = %s", [skus[0]])
    expected = answers(app, asked)
    forms.rebuild()
    builds = set()

    def by_new_build() -> bool:
        assert answers(app, asked) == expected
        builds.update(app.search.search(query).plan.build for query in asked)
        return forms.parts.id in builds

    wait_until(by_new_build)
    assert builds <= {before.id, forms.one.id, forms.parts.id, None}
