"""Fuzzing: mutated files of every kind that is read, many more than the tests take.

    make fuzz
    python tests/fuzzing/fuzz_files.py [--files 50000] [--seed 0] [--only KIND ...] [--data FOLDER]

Each kind gets as many files; the pictures of FOLDER/nasty are decoded by one process a core. A file
that is not handled is written to the folder `fuzz-findings`, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fuzzing.fuzz_targets import (
    LIMIT_S,
    Backups,
    Feeds,
    IndexFileTarget,
    Parquet,
    Pictures,
    Target,
    WebAnswers,
)
from support.paths import REPO

OTHERS = (Feeds, Parquet, IndexFileTarget, Backups, WebAnswers)


class Finding(AssertionError):
    """A mutated file that was not handled; `data` is its content."""

    def __init__(self, target: Target, data: bytes, problem: object) -> None:
        super().__init__(f"{target.name}: {problem!r} by a file of {len(data)} bytes")
        self.data = data


def files(target: Target, corpus: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """`count` mutated files; every valid one is taken in turn."""
    dice = random.Random(seed)
    for number in range(count):
        yield target.mutated(corpus[number % len(corpus)], dice.choice(corpus), dice)


def fuzz(target: Target, count: int, seed: int) -> int:
    """Read valid files and `count` mutated ones; returns how many of these were accepted. Raises
    Finding."""
    with target:
        corpus, accepted = target.corpus(), 0
        for data in corpus:
            target.read(data)
        for data in files(target, corpus, count, seed):
            began = time.monotonic()
            try:
                accepted += target.read(data)
            except Exception as exc:
                raise Finding(target, data, exc) from exc
            if time.monotonic() - began > 6 * LIMIT_S:  # others may use the processors too
                raise Finding(target, data, "it takes too long")
    return accepted


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--files", type=int, default=50_000, help="mutated files of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="names of the kinds")
    parser.add_argument(
        "--data", type=Path,
        default=os.environ.get("LOOKALIKE_TEST_DATA") or REPO.parent / "shared" / "data",
    )  # fmt: skip
    options = parser.parse_args()
    cores = os.cpu_count() or 1
    folder = Path(options.data) / "nasty"
    targets: list[Target] = [Pictures(folder) for _ in range(cores)] if folder.is_dir() else []
    targets += [other() for other in OTHERS]
    failed = False
    with ThreadPoolExecutor(cores) as pool:
        runs = []
        for number, target in enumerate(targets):
            if options.only and target.name not in options.only:
                continue
            count = options.files // cores if isinstance(target, Pictures) else options.files
            runs.append((target, count, pool.submit(fuzz, target, count, options.seed + number)))
        for target, count, run in runs:
            try:
                print(f"{target.name}: {count} files, {run.result()} accepted", flush=True)
            except Finding as finding:
                failed = True
                findings = Path("fuzz-findings")
                findings.mkdir(exist_ok=True)
                path = findings / hashlib.sha256(finding.data).hexdigest()[:16]
                path.write_bytes(finding.data)
                print(f"{finding}, written to {path}", flush=True)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
