"""Ingests, backfills, builds and searches on a cluster whose nodes are killed and replaced all the
time.

Run it for long with `make soak-cluster`. Each round is compared with the same on one machine, and
each answer of a build in parts with an exact scan; a difference stops it.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

import support.environment  # noqa: F401 - before all that starts threads or makes files
from app.bootstrap import App
from app.cluster import backfill, fill, job, row_writer
from app.cluster.session import Cluster, connect
from app.config import Settings
from app.db.embedded import server as embedded_server
from app.errors import IndexUnreadable
from app.index import embedding_reader, faiss_index, recall
from app.types import Build, Query
from support.cluster_runs import on_cluster, vectors_by_list
from support.held_encoder import choose_held
from support.ray_cluster import NODE, small_cluster
from support.sources import contents, ingest, write_csv, write_photos
from support.two_forms import answered

ROWS = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only-searches", action="store_true", help="nothing but builds in parts")
    options = parser.parse_args()
    backfill.PICTURES = row_writer.ROWS = 16
    fill.BLOCKS, embedding_reader.PAGES_PER_BLOCK, faiss_index.FLAT_ROWS = 1, 2, 100
    # All lists are searched, for vectors as the table has them: the answers are exact.
    faiss_index.CODES, recall.MIN_NPROBE = (faiss_index.FLOAT16,), 1_000_000
    folder = Path(tempfile.mkdtemp(prefix="lookalike-soak-"))
    ends, rounds = time.monotonic() + options.seconds, 0
    try:
        with small_cluster() as nodes, two_catalogues(folder) as (app, other):
            killer = Killer(nodes, random.Random(options.seed))
            with connect(nodes.address, 1, print) as cluster:
                first = Round(app, other, cluster, nodes.address, folder)
                ingest(app, first.source(0))
                with Searches(app, nodes.address, folder, killer) as searches:
                    while time.monotonic() < ends:
                        rounds += 1
                        each = Round(app, other, cluster, nodes.address, folder)
                        if not options.only_searches:
                            run_round(each, rounds, killer)
                        searches.run(each, rounds)
                        print(f"round {rounds}: the same, {killer.killed} nodes killed, {searches}",
                              flush=True)  # fmt: skip
    finally:
        embedded_server.stop(folder / "home")
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def two_catalogues(folder: Path) -> Iterator[tuple[App, App]]:
    """Services of a catalogue that is filled on the cluster, and of one filled here."""
    (folder / "encoders").mkdir()
    choose = partial(choose_held, folder / "encoders")
    embedded_server.start(folder / "home")
    with psycopg.connect(embedded_server.url(folder / "home", "postgres"), autocommit=True) as sql:
        for name in ("one", "two"):
            sql.execute(f"CREATE DATABASE {name}".encode())
    urls = [embedded_server.url(folder / "home", name) for name in ("one", "two")]
    settings = [Settings(home=folder / f"home-{n}", database_url=url) for n, url in enumerate(urls)]
    with App(settings[0], choose=choose) as one, App(settings[1], choose=choose) as two:
        for each in (one, two):
            each.initialise()
        yield one, two


class Killer:
    """Kills a node some time after a step begins, and adds another one."""

    def __init__(self, nodes: Any, random: random.Random) -> None:
        self._nodes = nodes
        self._random = random
        self.killed = 0

    def during(self, step: Callable[[], Any]) -> Any:
        """The result of a step during which a node is lost, if the step takes long enough."""
        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(step)
            wait([running], self._random.uniform(0, 3))
            if not running.done():
                # In this thread: a node takes signals.
                self._nodes.remove_node(self._nodes.list_all_nodes()[-1], allow_graceful=False)
                self._nodes.add_node(**NODE)
                self.killed += 1
            return running.result()


class Searches:
    """Searches by a build in parts while nodes are lost, of which each answer is checked."""

    def __init__(self, app: App, address: str, folder: Path, killer: Killer) -> None:
        choose = partial(choose_held, folder / "encoders")
        parts = {"search_on": address, "part_cpus": 0.01, "part_wait_s": 1.0,
                 "index_part_rows": 100}  # fmt: skip
        self._app = App(app.settings.model_copy(update=parts), choose=choose)
        # It takes any delta for too large, and compares all pictures.
        exactly = {"max_delta_rows": 0}
        self._exact = App(app.settings.model_copy(update=exactly), choose=choose)
        self._killer = killer
        self._counts = Counter[str]()

    def __enter__(self) -> Searches:
        return self

    def __exit__(self, *_: object) -> None:
        self._app.close()
        self._exact.close()

    def __str__(self) -> str:
        counts = ", ".join(f"{count} by {name}" for name, count in sorted(self._counts.items()))
        return f"answers: {counts}"

    def run(self, each: Round, number: int) -> None:
        """Build in parts and write a little, then search until after a node was lost."""
        filled = fill.ClusterFill(each.cluster, each.described, lambda message: None)
        build = self._killer.during(lambda: self._app.indexer.rebuild(fill=filled))
        assert build.state == "published" and len(build.parts) > 1, build
        with psycopg.connect(str(self._app.settings.database_url), autocommit=True) as sql:
            # These count as changed since the build.
            sql.execute("UPDATE embedding SET vec = vec WHERE picture_id %% 29 = %s", [number % 29])
            skus = [row[0] for row in sql.execute("SELECT sku FROM product ORDER BY random()")]
        self._open(build)  # until then, the build before would answer
        self._killer.during(lambda: self._search(skus, 60))
        self._search(skus, 30)

    def _open(self, build: Build) -> None:
        """Nodes that were lost may hold up a part for longer than is waited for."""
        for attempts_left in reversed(range(5)):
            try:
                self._app.files.open(build)
                return
            except IndexUnreadable:
                if not attempts_left:
                    raise

    def _search(self, skus: list[str], count: int) -> None:
        for number in range(count):
            shown: tuple[str, ...] = ()
            for _ in range(2):
                query = Query(
                    sku=skus[number % len(skus)], k=(1, 5, 30)[number % 3], fold=number % 2 == 0,
                    shown=shown,
                )  # fmt: skip
                result, exact = (each.search.search(query) for each in (self._app, self._exact))
                assert exact.plan.path == "exact", exact.plan
                assert answered(result) == answered(exact), (result, exact)
                plan = result.plan
                self._counts[f"{plan.path} ({plan.reason_code})"] += 1
                shown = tuple(each.product.sku for each in result.matches)


class Round:
    """One catalogue filled on the cluster, another here, from the same source."""

    def __init__(self, app: App, other: App, cluster: Cluster, address: str, folder: Path) -> None:
        self.app, self.other, self.cluster, self.folder = app, other, cluster, folder
        self.described = job.describe(app, address, partial(choose_held, folder / "encoders"))

    def source(self, number: int) -> Path:
        """Products with pictures, of which each round changes, adds and leaves out some."""
        seeds = range(number * 20, number * 20 + ROWS)
        write_photos(self.folder / "in", seeds)
        rows = [
            {"sku": f"P{n:05}", "title": f"title {n} {number if n % 7 == 0 else ''}",
             "images": f"{n}.png"}
            for n in seeds
        ]  # fmt: skip
        return write_csv(self.folder / "in" / "catalogue.csv", rows)


def run_round(each: Round, number: int, killer: Killer) -> None:
    app, source = each.app, each.source(number)
    options = {"prune": True, "force": True}
    ingest(each.other, source, **options)
    killer.during(lambda: on_cluster(app, each.cluster, each.described, source, **options))
    compare(each)
    with psycopg.connect(str(app.settings.database_url), autocommit=True) as sql:
        sql.execute("DELETE FROM embedding WHERE random() < 0.5")
    model = app.catalog.model()
    killer.during(lambda: backfill.embed(app, each.cluster, each.described, model, [source.parent]))
    compare(each)
    filled = fill.ClusterFill(each.cluster, each.described, lambda message: None)
    many = killer.during(lambda: app.indexer.rebuild(fill=filled))
    assert vectors_by_list(app, many) == vectors_by_list(app, app.indexer.rebuild())


def compare(each: Round) -> None:
    found = []
    for app in (each.app, each.other):
        with psycopg.connect(str(app.settings.database_url)) as sql:
            found.append(contents(sql))
    assert found[0] == found[1]


if __name__ == "__main__":
    main()
