"""What the simulation computes with: each figure with its source, and how far it may be off.

Measured figures are of one thread of an AMD EPYC with AVX-512 and 512 dimensions. What could not be
measured here is said to be assumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

BENCHMARKS = "docs/benchmarks.md"
ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class Input:
    """A figure in `unit`: the `good` and the `bad` end of what it may be, and the likely value."""

    name: str
    unit: str
    good: float
    likely: float
    bad: float
    source: str


@dataclass(frozen=True, slots=True)
class Values:
    """All inputs at one level, by name."""

    by_name: Mapping[str, float]

    def __getitem__(self, name: str) -> float:
        return self.by_name[name]


LEVELS = ("good", "likely", "bad")

INPUTS = (
    # Embedding, a network of the size of ViT-B/32.
    Input("picture_read", "ms of a processor", 1.5, 3.6, 4.5,
          f"{BENCHMARKS}, ingest by stage, one megapixel: read, hash, decode, thumbnail, prepare"),
    Input("encode_processor", "ms of a processor", 11.6, 39.0, 45.0,
          f"{BENCHMARKS}, ingest by stage: 8 bits, single precision; with spread"),
    Input("encode_card", "pictures/s of a graphics card", 10_127, 5_090, 2_500,
          "timm, results/benchmark-infer-amp-nchw-pt240-cu124: vit_base_patch32_clip_224 alone on "
          "an RTX 4090 and 3090; clip-retrieval, distributed inference: one A100 with reading"),
    Input("task_share", "of the encoder's time", 0.0005, 0.001, 0.01,
          "bench.cluster.task_cost: 4 ms a task of 256 pictures; the goal as the bad end"),
    # PostgreSQL, by product (1) or picture.
    Input("product_bytes", "bytes a product", 505, 889, 1_500,
          f"{BENCHMARKS}, growth, a million with short titles; bench.cluster.row_cost, with colour "
          "and attributes; longer titles"),
    Input("picture_bytes", "bytes a picture", 109, 304, 400,
          f"bench.cluster.row_cost; {BENCHMARKS}, growth, a million with indexes"),
    Input("thumbnail_bytes", "bytes a picture", 8_400, 18_100, 24_000,
          "bench.cluster.row_cost, 1.2 for each byte: 7,000; 15,136, the mean of 120 photos of "
          "clothing; 20,000, the most there may be"),
    Input("embedding_bytes", "bytes a picture and model", 1_172, 1_220, 1_300,
          f"{BENCHMARKS}, growth, a million: 1,172 and a B-tree of 22 to 40"),
    Input("fallback_bytes", "bytes a picture", 0, 1_180, 1_300,
          "decision 52: pgvector's lists of a million; none where it is left out"),
    Input("log_share", "bytes logged by byte stored", 1.1, 1.25, 2.5,
          "bench.cluster.row_cost: 13,248 by 10,606; whole pages after checkpoints assumed"),
    Input("write", "ms of the one writer a picture", 0.11, 0.37, 0.89,
          f"{BENCHMARKS}: 9,052 products/s in transactions of 256 on two cores; a product in one "
          "of 64, at 20,000 and at a million with lists of pgvector; bench.cluster.row_cost: 0.20"),
    Input("backup_rate", "MB/s", 100, 37, 20,
          f"{BENCHMARKS}, growth: 2,838 MB in 76.6 s on one core"),
    Input("restore_rate", "MB/s", 60, 20, 8,
          "bench.cluster.row_cost: 12.5 with the start of the command; half of a backup"),
    Input("replay_rate", "MB/s of log that a replica replays", 300, 100, 40,
          f"{ASSUMED}: one process, on local disks"),
    Input("scan_rate", "MB/s that VACUUM reads of a table", 800, 300, 80, ASSUMED),
    Input("disk_read_ms", "ms of a random read of 8 KB", 0.08, 0.12, 0.5,
          f"{ASSUMED}: local NVMe; network disks at the bad end"),
    Input("reads_at_once", "reads of a statement", 8, 2, 1, f"{ASSUMED}: prefetching"),
    # The index.
    Input("index_bytes", "bytes a picture", 160, 165, 300,
          f"{BENCHMARKS}, memory of an index: 2 bits; 4 bits at the bad end"),
    Input("assign", "us of a processor a picture and 1,000 lists", 8, 11, 16,
          "bench.cluster.part_cost; decision 62: 0.11 s for 30,000 and 346 lists"),
    Input("encode", "us of a processor a picture", 25, 34, 85,
          "bench.cluster.part_cost: 25 to 28; decision 62: 34; decision 40: 60 to 70; 4 bits"),
    Input("measure", "us of a processor a picture", 40, 70, 110,
          "bench.cluster.part_cost: 64 to 82; the rest of 179 s for a million, docs/benchmarks.md"),
    Input("read_rate", "rows/s that a builder reads", 700_000, 400_000, 200_000,
          f"{BENCHMARKS}, the index: 1.39 s for a million, 3.53 s from disk"),
    Input("probed_share", "of the lists", 0.004, 0.2, 0.37,
          f"{BENCHMARKS}: 8 of 2,000 lists, a million in clear clusters; bench.cluster.part_cost, "
          "a spectrum like CLIP's: 46 of 282, 128 of 489; 1,478 of 4,000 for many loose clusters"),
    Input("compare_list", "us a list", 0.02, 0.03, 0.05,
          "512 multiplications by BLAS; bench.cluster.part_cost"),
    Input("scan_row", "us a row", 0.034, 0.041, 0.065,
          "decision 40: 50,000 rows in 1.7 ms; bench.cluster.part_cost: 0.041 and, with fewer rows "
          "a list, 0.065"),
    Input("nominees", "rows", 50, 90, 100,
          f"{BENCHMARKS}: 72 at a million; a build is refused above 100 with few bits"),
    Input("statement_base", "ms", 1.0, 2.0, 5.8,
          f"{BENCHMARKS}: search and details; folded, with reasons, at the bad end"),
    Input("statement_nominee", "ms a nominee", 0.005, 0.0074, 0.012,
          f"{BENCHMARKS}, further pages: page 40 nominates 4,400 in 35 ms"),
    Input("pages_nominee", "pages read a nominee", 2, 4, 6,
          "embedding, its B-tree, product and picture, where they are not in memory"),
    Input("call_p50", "ms", 1.0, 3.2, 5.0, "a call of an actor of Ray 2.60 on two cores"),
    Input("call_p99", "ms", 4.0, 13.0, 30.0, "the same"),
    Input("merge", "ms a part", 0.002, 0.005, 0.02, "bench.cluster.part_cost, 100 nominees each"),
)  # fmt: skip


def values(level: str) -> Values:
    """All inputs at a level of LEVELS."""
    return Values(MappingProxyType({each.name: getattr(each, level) for each in INPUTS}))


def table() -> Iterator[str]:
    """The inputs as lines of a Markdown table."""
    yield "| input | unit | good | likely | bad | source |"
    yield "|---|---|---|---|---|---|"
    for each in INPUTS:
        numbers = " | ".join(f"{number:,.6g}" for number in (each.good, each.likely, each.bad))
        yield f"| {each.name.replace('_', ' ')} | {each.unit} | {numbers} | {each.source} |"
