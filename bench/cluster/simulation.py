"""What a catalogue of up to a billion products needs, from what its parts were measured to take.

    python -m bench.cluster.simulation [--rows 1000000 …] [--pictures 1 3] [--inputs]

Every figure is given as "likely (good to bad)": all inputs of `bench.cluster.inputs` at their
likely value, and at the good and the bad end together. Nothing beyond a million was measured.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from app.index import faiss_index, kmeans
from bench.cluster import inputs
from bench.cluster.inputs import LEVELS, Values
from bench.cluster.scatter import Duration, Parts, rate_at, search_of, times

ROWS = (1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
DIM = 512
MACHINE_CORES, MACHINE_GB = 16, 128
"""A machine of a cluster, by which machines are counted."""

USED_MEMORY = 0.6
"""Of the memory of a machine, what index files may take."""

CLUSTER_CORES, CLUSTER_CARDS = 64, 8
"""A cluster that embeds and builds, by which hours are counted."""

CACHED_SHARE = 0.75
"""Of the memory of the machine of PostgreSQL, what holds pages of tables."""

PART_MS = 25.0
"""How long a part may be searched: an index that takes longer is divided into more parts."""

PART_ROWS = 200_000_000
"""The largest part."""

LOAD = 0.5
"""How busy the processors of the parts are when the times of queries are taken."""

QUERIES, SEED = 400, 21
TB, GB = 1e12, 1e9
TABLE_LIMIT = 32 * 2**40
"""Bytes of a table of PostgreSQL with pages of 8 KB (PostgreSQL, appendix "Limits"); that of its
TOAST data is one of its own."""

WRITE_ROWS = 256
"""Rows of a transaction of an ingest."""

FREEZE_AGE = 200_000_000
"""Transactions after which PostgreSQL freezes a table (autovacuum_freeze_max_age)."""

CHANGED_A_DAY = 0.02
"""Of the products, as a catalogue is kept up to date."""

OTHER_WRITES_A_DAY = 100_000
"""Transactions that write something else: samples of queries, events, verdicts."""

ASKED = 100
"""Queries a second by which processors are counted."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a catalogue needs; hours are those of the cluster or of one PostgreSQL server."""

    pictures: float
    embed_card_hours: float
    embed_core_hours: float
    cores_a_card: float
    index_bytes: float
    parts: int
    build_core_hours: float
    build_hours: float
    search_core_ms: float
    cores_to_search: float
    statement_ms: float
    queries_a_core: float
    query_p50_ms: float
    query_p99_ms: float
    search_machines: int
    database_bytes: float
    largest_table: float
    write_hours: float
    loaded_hours: float
    log_mb_s: float
    replica_share: float
    backup_hours: float
    restore_hours: float
    vacuum_hours: float
    days_to_freeze: float


def plan(rows: int, pictures_each: int, level: str, seed: int = SEED) -> Plan:
    """What so many products need with the inputs of a level."""
    v = inputs.values(level)
    pictures = rows * pictures_each
    lists = max(1, faiss_index.list_count(pictures))
    card_hours, core_hours, cores_a_card = _embedding(v, pictures)
    build_core_hours, build_hours = _build(v, pictures, lists)
    parts = part_count(v, pictures, lists)
    search = _search(v, pictures, lists, parts)
    data = database_bytes(v, rows, pictures)
    index_bytes = pictures * v["index_bytes"] + lists * DIM * 4
    statement_ms = _statement_ms(v, searched_bytes(v, rows, pictures))
    waits = times(search, rate_at(search, LOAD), QUERIES, seed) + statement_ms
    core_ms = parts * search.search.mean
    memory = 2 * index_bytes / (USED_MEMORY * MACHINE_GB * GB)  # the one before is in use too
    logged = v["log_share"] * data
    load_s = pictures * v["write"] / 1000
    return Plan(
        pictures=pictures,
        embed_card_hours=card_hours,
        embed_core_hours=core_hours,
        cores_a_card=cores_a_card,
        index_bytes=index_bytes,
        parts=parts,
        build_core_hours=build_core_hours,
        build_hours=build_hours,
        search_core_ms=core_ms,
        cores_to_search=ASKED * core_ms / 1000 / LOAD,
        statement_ms=statement_ms,
        queries_a_core=1000 / (core_ms + statement_ms),
        query_p50_ms=float(np.percentile(waits, 50)),
        query_p99_ms=float(np.percentile(waits, 99)),
        search_machines=math.ceil(max(memory, ASKED * core_ms / 1000 / LOAD / MACHINE_CORES)),
        database_bytes=data,
        largest_table=max(pictures * v["thumbnail_bytes"], pictures * v["embedding_bytes"]),
        write_hours=load_s / 3600,
        loaded_hours=max(load_s / 3600, card_hours / CLUSTER_CARDS),
        log_mb_s=logged / load_s / 1e6,
        replica_share=logged / load_s / 1e6 / v["replay_rate"],
        backup_hours=data / 1e6 / v["backup_rate"] / 3600,
        restore_hours=data / 1e6 / v["restore_rate"] / 3600,
        vacuum_hours=pictures * v["embedding_bytes"] / 1e6 / v["scan_rate"] / 3600,
        days_to_freeze=FREEZE_AGE / (OTHER_WRITES_A_DAY + CHANGED_A_DAY * rows / WRITE_ROWS),
    )


def _embedding(v: Values, pictures: float) -> tuple[float, float, float]:
    """Hours of a graphics card and of a core, and the cores that feed a card."""
    shared = 1 + v["task_share"]
    cards = pictures / v["encode_card"] / 3600 * shared
    cores = pictures * (v["picture_read"] + v["encode_processor"]) / 1000 / 3600 * shared
    return cards, cores, v["encode_card"] * v["picture_read"] / 1000


def _build(v: Values, pictures: float, lists: int) -> tuple[float, float]:
    """Core hours of a build, and hours on the cluster: one process trains, measures and merges."""
    assign_us = v["assign"] * lists / 1000
    sample = kmeans.sample_size(lists, DIM)
    trained = sum(min(each * lists, sample) for each in kmeans.SAMPLES_PER_CENTROID)
    training_s = trained * assign_us / 1e6
    filling_s = pictures * (assign_us + v["encode"]) / 1e6
    measuring_s = pictures * v["measure"] / 1e6
    reading_s = 2 * pictures / v["read_rate"]
    own_s = max((training_s + measuring_s) / MACHINE_CORES, reading_s)
    core_s = training_s + filling_s + measuring_s
    return core_s / 3600, (own_s + filling_s / CLUSTER_CORES) / 3600


def search_ms(v: Values, pictures: float, lists: int, parts: int) -> float:
    """Milliseconds of a processor that one of so many parts is searched; each has all lists."""
    probed = max(faiss_index.MIN_NPROBE / lists, v["probed_share"])
    rows = min(1.0, probed) * pictures / parts
    return (lists * v["compare_list"] + rows * v["scan_row"]) / 1000


def part_count(v: Values, pictures: float, lists: int) -> int:
    """Parts so that none is too large, nor takes too long beyond what comparing lists takes."""
    least = math.ceil(pictures / PART_ROWS)
    fixed, whole = search_ms(v, 0, lists, 1), search_ms(v, pictures, lists, 1)
    return max(1, least, math.ceil((whole - fixed) / PART_MS))


def _search(v: Values, pictures: float, lists: int, parts: int) -> Parts:
    call = Duration(v["call_p50"], v["call_p99"]) if parts > 1 else Duration(0.0, 0.0)
    return Parts(parts, 1, search_of(search_ms(v, pictures, lists, parts)), call, v["merge"])


def database_bytes(v: Values, rows: float, pictures: float) -> float:
    """Bytes of a catalogue of one model in PostgreSQL."""
    each = ("picture_bytes", "thumbnail_bytes", "embedding_bytes", "fallback_bytes")
    return rows * v["product_bytes"] + pictures * sum(v[name] for name in each)


def searched_bytes(v: Values, rows: float, pictures: float) -> float:
    """Of these, what the statement of a search reads: all but thumbnails and pgvector's lists."""
    return rows * v["product_bytes"] + pictures * (v["picture_bytes"] + v["embedding_bytes"])


def _statement_ms(v: Values, searched: float) -> float:
    """The statement that orders nominees; what does not fit into the memory of its server is
    read from disk."""
    cached = min(1.0, CACHED_SHARE * MACHINE_GB * GB / searched)
    reads = v["nominees"] * v["pages_nominee"] * (1 - cached)
    waited = reads * v["disk_read_ms"] / v["reads_at_once"]
    return v["statement_base"] + v["nominees"] * v["statement_nominee"] + waited


Show = Callable[[Plan], float]
SHOWN: Sequence[tuple[str, Show]] = (
    ("pictures, millions", lambda p: p.pictures / 1e6),
    (f"hours to encode, {CLUSTER_CARDS} graphics cards",
     lambda p: p.embed_card_hours / CLUSTER_CARDS),
    ("cores that read pictures for a card", lambda p: p.cores_a_card),
    (f"hours to encode, {CLUSTER_CORES} cores", lambda p: p.embed_core_hours / CLUSTER_CORES),
    ("hours of the one writer", lambda p: p.write_hours),
    (f"hours to load, {CLUSTER_CARDS} graphics cards", lambda p: p.loaded_hours),
    ("index, GB", lambda p: p.index_bytes / GB),
    (f"parts, each searched within {PART_MS:.0f} ms", lambda p: p.parts),
    ("a rebuild, core hours", lambda p: p.build_core_hours),
    (f"a rebuild, hours on {CLUSTER_CORES} cores", lambda p: p.build_hours),
    ("searching the index, ms of processors", lambda p: p.search_core_ms),
    ("the statement, ms", lambda p: p.statement_ms),
    ("queries/s of a core", lambda p: p.queries_a_core),
    (f"cores for {ASKED} queries/s", lambda p: p.cores_to_search),
    (f"machines of {MACHINE_CORES} cores, {MACHINE_GB} GB for them", lambda p: p.search_machines),
    ("p50 of a query at half load, ms", lambda p: p.query_p50_ms),
    ("p99, ms", lambda p: p.query_p99_ms),
    ("PostgreSQL, TB", lambda p: p.database_bytes / TB),
    ("its largest table, share of 32 TiB", lambda p: p.largest_table / TABLE_LIMIT),
    ("log while it loads, MB/s", lambda p: p.log_mb_s),
    ("the same, by what a replica replays", lambda p: p.replica_share),
    ("backup, hours", lambda p: p.backup_hours),
    ("restore, hours", lambda p: p.restore_hours),
    ("VACUUM of the embeddings, hours", lambda p: p.vacuum_hours),
    ("days between freezes, 2 % changed a day", lambda p: p.days_to_freeze),
)  # fmt: skip


def table(rows: Sequence[int], pictures_each: int) -> Iterator[str]:
    """The plans as lines of a Markdown table, a column for each size."""
    plans = [{level: plan(each, pictures_each, level) for level in LEVELS} for each in rows]
    yield "| | " + " | ".join(f"{each:,}" for each in rows) + " |"
    yield "|---" * (len(rows) + 1) + "|"
    for name, show in SHOWN:
        cells = (
            _cell(*(show(by_level[level]) for level in ("likely", "good", "bad")))
            for by_level in plans
        )
        yield f"| {name} | " + " | ".join(cells) + " |"


def _cell(likely: float, good: float, bad: float) -> str:
    shown = [_number(each) for each in (likely, good, bad)]
    return shown[0] if len(set(shown)) == 1 else f"{shown[0]} ({shown[1]} to {shown[2]})"


def _number(value: float) -> str:
    """With two significant digits."""
    if value >= 100 or value == 0:
        digits = max(0, len(str(int(value))) - 2)
        return f"{round(value, -digits):,.0f}"
    return f"{float(f'{value:.2g}'):g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--pictures", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--inputs", action="store_true", help="print the table of inputs alone")
    options = parser.parse_args()
    if options.inputs:
        print(*inputs.table(), sep="\n")
        return
    for each in options.pictures:
        print(f"\n{each} picture{'s' * (each > 1)} a product\n")
        print(*table(options.rows, each), sep="\n")


if __name__ == "__main__":
    main()
