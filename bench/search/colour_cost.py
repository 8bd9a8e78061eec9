"""What ranking by the colours of the pixels costs a search by words, and an ingest.

    python -m bench.search.colour_cost --rows 100000

Processor time of client and server of searches by words that name a colour, beside those of words
that name none and a vector that is given, in turn and in one run, on generated vectors with drawn
colours; then the same in a catalogue whose colours are not filled. Then that of the colours of
photos from their thumbnails, beside that of preparing and encoding the same photos.
"""

from __future__ import annotations

import argparse
import io
import os
import time
from collections.abc import Callable

import numpy as np
from PIL import Image
from sqlalchemy import text

from app.bootstrap import App
from app.db.engine import driver_connection
from app.images.basic_colours import NAMES, VERSION
from app.images.colours import colours_of_thumbnail
from app.images.decoding import decode
from app.images.thumbnails import thumbnail
from app.types import Query
from bench.data.catalogue import catalogue
from bench.data.vectors import DIM
from bench.harness.side_by_side import BenchmarkReport, measure_alternately, ratio
from bench.search.query_kinds import processor_ms

K = 12
PLAIN = "a vector"
QUERIES = {
    "by the model: no colour": Query(words="striped dress", words_by="model", k=K),
    "by the model: a colour and a kind": Query(words="red dress", words_by="model", k=K),
    "by the model: a colour": Query(words="red", words_by="model", k=K),
    "model and catalogue: no colour": Query(words="striped dress", k=K),
    "model and catalogue: a colour and a kind": Query(words="red dress", k=K),
}
COPY = "COPY picture_colours (picture_id, version, main, main_share, shares) FROM STDIN"
PHOTOS = 48
NOT_FILLED = "UPDATE picture_colours SET version = 0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--block", type=int, default=5, help="queries of a kind per round")
    options = parser.parse_args()
    report = BenchmarkReport("colour_cost", f"Colours of pixels, {os.cpu_count()} cores")
    with catalogue(options.rows, own=True) as app:
        draw_colours(app, options.rows)
        app.indexer.rebuild()
        measure_searches(app, "filled", options.rounds, options.block, report)
        with app.engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text(NOT_FILLED))
        vacuum(app)
        measure_searches(app, "not filled", options.rounds, options.block, report)
        measure_ingest(app, options.rounds, report)
    report.write()


def draw_colours(app: App, rows: int) -> None:
    """Two colours a picture, as drawn."""
    random = np.random.default_rng(7)
    with app.engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        with driver_connection(connection).cursor().copy(COPY) as copying:
            for id_ in range(1, rows + 1):
                shares = np.zeros(len(NAMES), np.uint8)
                first, second = random.choice(len(NAMES), 2, replace=False)
                shares[first] = random.integers(128, 256)
                shares[second] = 255 - shares[first]
                written = "\\x" + shares.tobytes().hex()
                copying.write_row((id_, VERSION, int(first), int(shares[first]), written))
    vacuum(app)


def vacuum(app: App) -> None:
    with app.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE picture_colours"))


def measure_searches(
    app: App, colours: str, rounds: int, block: int, report: BenchmarkReport
) -> None:
    """Each kind, as a multiple of a vector's and of the one of its readers that names no colour."""
    vector = np.random.default_rng(5).standard_normal(DIM).astype(np.float32)
    plain = Query(vector=vector, model_id=app.catalog.model().id, k=K)
    queries = {PLAIN: plain, **QUERIES}

    def block_of(query: Query) -> Callable[[], float]:
        def run() -> float:
            before = processor_ms(app)
            for _ in range(block):
                app.search.search(query)
            return (processor_ms(app) - before) / block

        return run

    cost = measure_alternately(
        {name: block_of(query) for name, query in queries.items()}, rounds, unit="ms", warmup=2
    )
    for name, measured in cost.items():
        words = None if name == PLAIN else cost[f"{name.partition(':')[0]}: no colour"]
        result = app.search.search(queries[name])
        report.row(
            colours=colours, asked=name, processor=measured,
            times_plain=ratio(measured, cost[PLAIN]),
            times_words=None if words is None else ratio(measured, words),
        )  # fmt: skip
        report.note(f"{colours}, {name}: {len(result.matches)} matches, {result.plan.reason}")


def measure_ingest(app: App, rounds: int, report: BenchmarkReport) -> None:
    """Of photos of one megapixel: their colours, and what else an ingest does with each."""
    random = np.random.default_rng(3)
    files = [_photo(random) for _ in range(PHOTOS)]
    encoder = app.encoder()
    pictures = [decode(data, at_least=encoder.input_side) for data in files]
    small = [thumbnail(picture) for picture in pictures]

    def colours() -> float:
        return _process_ms(lambda: [colours_of_thumbnail(each) for each in small])

    def encode() -> float:
        return _process_ms(lambda: encoder.encode_pictures(pictures))

    cost = measure_alternately(
        {"colours": colours, "encode": encode}, max(rounds // 2, 3), unit="ms", warmup=1
    )
    for name, measured in cost.items():
        share = ratio(measured, cost["encode"])
        report.row(picture=name, processor=measured, times_encode=share)


def _process_ms(call: Callable[[], object]) -> float:
    """Milliseconds of processor time for each photo."""
    began = time.process_time()
    call()
    return (time.process_time() - began) * 1000 / PHOTOS


def _photo(random: np.random.Generator) -> bytes:
    blocks = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    picture = Image.fromarray(blocks).resize((1152, 864), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=88)
    return file.getvalue()


if __name__ == "__main__":
    main()
