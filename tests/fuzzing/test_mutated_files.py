"""Mutated files of every kind are refused in the product's own words, or read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fuzzing.feed_process import FeedProcess
from fuzzing.fuzz_files import OTHERS, Finding, fuzz
from fuzzing.fuzz_targets import Backups, Feeds, Pictures, Target, WebAnswers
from ingest.records import record_row
from support.paths import REPO

PICTURES = 500
SMALL_BYTES = 40_000
"""`make fuzz` takes the larger files too."""


def test_no_mutated_picture_ends_the_process_that_decodes(test_data: Path) -> None:
    target = Pictures(test_data / "nasty", SMALL_BYTES)
    assert len(target.corpus()) > 50
    assert 20 < fuzz(target, PICTURES, seed=1) < PICTURES


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind.name)
def test_no_mutated_file_is_an_error(kind: type[Target]) -> None:
    fuzz(kind(), 500, seed=1)


def test_a_reader_that_dies_or_hangs_is_a_finding(tmp_path: Path) -> None:
    (source := tmp_path / "products.csv").write_text("sku,title\nA,Coat\n")
    process = FeedProcess(1 << 30, timeout_s=1)
    try:
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(AssertionError, match="died or took too long"):
            process.read(source)
    finally:
        process.close()


plain = hypothesis_settings(derandomize=True, max_examples=60, deadline=None)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@plain
@given(st.text() | st.text('sku,title"\n\r;\t\0|images0123 é'))
def test_any_text_is_a_catalogue_or_refused(text: str) -> None:
    with Feeds() as target:
        for start in (b"", b"sku,images\n", b'{"sku": ', b"<rss>"):
            target.read(start + text.encode())


KEYS = st.sampled_from(("sku", "SKU", "title", "price", "year", "images", "colour", " sku"))


@plain
@given(st.dictionaries(KEYS | st.text(), json_values, max_size=6))
def test_any_object_is_a_row_or_a_reject(record: dict[str, object]) -> None:
    assert record_row(1, record).line == 1


@pytest.fixture(scope="module")
def answers() -> Iterator[WebAnswers]:
    with WebAnswers() as target:
        yield target


@plain
@given(head=st.binary(), body=st.binary())
def test_any_bytes_are_a_web_answer_or_refused(
    answers: WebAnswers, head: bytes, body: bytes
) -> None:
    answers.read(b"HTTP/1.1 " + head)
    answers.read(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body)


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"format":' * 50_000, b"\xff", b"null"])
def test_a_deeply_nested_or_odd_manifest_is_no_backup(content: bytes) -> None:
    with Backups() as target:
        assert target.read(content) is False


def test_the_command_runs(tmp_path: Path) -> None:
    command = [sys.executable, REPO / "tests/fuzzing/fuzz_files.py", "--files", "3"]
    done = subprocess.run(
        [*command, "--only", "feeds"], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": f"{REPO}{os.pathsep}{REPO / 'tests'}"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("feeds: 3 files, ")


def test_a_finding_has_the_file() -> None:
    class Fragile(Feeds):
        name = "fragile"

        def read(self, data: bytes) -> bool:
            if data not in self.corpus():
                raise KeyError("sku")
            return True

    with pytest.raises(Finding, match="fragile: KeyError") as found:
        fuzz(Fragile(), 5, seed=0)
    assert found.value.data not in Feeds().corpus()
