"""What is fuzzed: valid files of a kind, and what reads them. Bad files are refused, no more."""

from __future__ import annotations

import codecs
import csv
import io
import random
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from httpcore2 import NetworkStream

from app.errors import BadImage, BadSource, IndexUnreadable
from app.images.download import Downloader
from app.images.public_network import PublicNetwork
from app.images.sandbox import _UNSAFE, PictureSandbox
from app.images.thumbnails import thumbnail
from app.index import faiss_index
from app.index.file_store import IndexFiles
from app.operations import backup_manifest
from app.operations.backup_manifest import BadBackup, Manifest
from app.types import Build, Model
from fuzzing.feed_process import FeedProcess
from ingest.feeds.formats import read_source
from support.colours import photo
from support.mutation import mutated
from support.paths import REPO

FEEDS = REPO / "tests" / "ingest" / "feeds"
"""A file of each format."""

LIMIT_S = 10.0
LIMIT_BYTES = 1 << 30


class Target(ABC):
    """A kind of file and its reader, to be used in a `with` block."""

    name: str

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._open(self._stack)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stack.close()

    @abstractmethod
    def corpus(self) -> Sequence[bytes]:
        """Valid files."""

    def mutated(self, data: bytes, other: bytes, dice: random.Random) -> bytes:
        """A file with a few changes; splices come from another one."""
        return mutated(data, other, dice)

    def _open(self, stack: ExitStack) -> None:  # noqa: B027 - many need nothing
        """Make what reading needs."""

    @abstractmethod
    def read(self, data: bytes) -> bool:
        """Read a file as the product does: whether it was accepted. Anything but a refusal in the
        product's own words is an exception."""


class Pictures(Target):
    """The real and drawn pictures of a folder, decoded in the process that decodes uploads, which
    must not die, nor take LIMIT_S or LIMIT_BYTES."""

    name = "pictures"

    def __init__(self, folder: Path, most_bytes: int | None = None) -> None:
        super().__init__()
        self._folder, self._most_bytes = folder, most_bytes

    def corpus(self) -> Sequence[bytes]:
        with (self._folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [
            (self._folder / row["name"]).read_bytes() for row in rows
            if row["pillow_outcome"] == "ok"
            and (self._most_bytes is None or int(row["bytes"]) <= self._most_bytes)
        ]  # fmt: skip

    def _open(self, stack: ExitStack) -> None:
        self._sandbox = stack.enter_context(
            PictureSandbox(timeout_s=LIMIT_S, memory_bytes=LIMIT_BYTES, processes=1)
        )

    def read(self, data: bytes) -> bool:
        try:
            assert thumbnail(self._sandbox.decode(data, at_least=256))
        except BadImage as exc:
            text = str(exc)
            assert text != _UNSAFE, "the process that decodes died"
            assert "took longer" not in text, text
            assert text.endswith("."), text
            return False
        return True


class Feeds(Target):
    """Catalogues in every format that is read by its start: CSV, JSON lines, feeds of shops."""

    name = "feeds"

    def corpus(self) -> Sequence[bytes]:
        rows = (
            "sku,title,brand,price,year,images,size\nA,lamp,Kestrel,12.50,2019,a.png|b.png,L\n"
            '"B,1","a ""b""\nc",é,,,x.jpg,\n'
        )
        plain = rows.encode()
        tables = [
            plain,
            plain.replace(b"\n", b"\r\n"),
            codecs.BOM_UTF8 + plain,
            rows.encode("utf-16"),
        ]
        return [*tables, *(file.read_bytes() for file in sorted(FEEDS.iterdir()))]

    def _open(self, stack: ExitStack) -> None:
        self._file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "catalogue"

    def read(self, data: bytes) -> bool:
        self._file.write_bytes(data)
        try:
            for row in read_source(self._file):
                assert row.line >= 0
        except BadSource as exc:
            assert str(exc).endswith("."), exc
            return False
        return True


class Parquet(Target):
    """Parquet files, read by a process that must not die, hang, or take LIMIT_BYTES."""

    name = "parquet"

    def corpus(self) -> Sequence[bytes]:
        return [
            parquet_file(),
            parquet_file(compression="zstd", use_dictionary=False),
            parquet_file(compression="none", version="1.0", row_group_size=7),
            parquet_file(compression="gzip", data_page_version="2.0"),
            parquet_file(compression="none", store_schema=False),
        ]

    def mutated(self, data: bytes, other: bytes, dice: random.Random) -> bytes:
        """Mostly either the pages or the description at the end is changed, and its length is
        right: nothing else is read of other files."""
        if dice.random() < 0.3:
            return super().mutated(data, other, dice)
        (pages, end), (other_pages, other_end) = map(parquet_parts, (data, other))
        if dice.random() < 0.5:
            end = mutated(end, other_end, dice)
        else:
            pages = mutated(pages, other_pages, dice)
        return pages + end + len(end).to_bytes(4, "little") + b"PAR1"

    def _open(self, stack: ExitStack) -> None:
        self._file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "catalogue"
        self._process = FeedProcess(LIMIT_BYTES, 6 * LIMIT_S)  # others use the processors too
        stack.callback(self._process.close)

    def read(self, data: bytes) -> bool:
        self._file.write_bytes(data)
        answer = self._process.read(self._file)
        assert answer.startswith("read ") or answer.endswith("."), answer
        return answer.startswith("read ")


def parquet_file(**options: Any) -> bytes:
    """A catalogue of 60 products as pyarrow writes it."""
    columns = {
        "sku": [f"P{number}" for number in range(60)],
        "title": ["lamp é", "x" * 50, None] * 20,
        "price": [1.5, None, 3.0] * 20,
        "year": pa.array([2019, None, 2021] * 20, pa.int32()),
        "images": [["a.png"], [], None] * 20,
        "made": pa.array([None, 1, 2] * 20, pa.timestamp("us")),
    }
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, **options)
    return file.getvalue()


def parquet_parts(data: bytes) -> tuple[bytes, bytes]:
    """The pages of a valid Parquet file, and the description of them that follows."""
    length = int.from_bytes(data[-8:-4], "little")
    return data[: -8 - length], data[-8 - length : -8]


class IndexFileTarget(Target):
    """Index files under the name of the original; FAISS must never see a changed one."""

    name = "index files"

    def _open(self, stack: ExitStack) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self._files = IndexFiles(folder)
        vectors = np.random.default_rng(0).standard_normal((40, 16)).astype(np.float32)
        sha256, size = self._files.write(faiss_index.build(np.arange(40, dtype=np.int64), vectors))
        figures: dict[str, Any] = dict.fromkeys(Build.__slots__)
        figures |= {"id": 1, "kind": "flat", "parameters": {}, "rows": 40}
        self._build = Build(**figures | {"sha256": sha256, "size": size})
        self._path = self._files.path(sha256)
        self._content = self._path.read_bytes()

    def corpus(self) -> Sequence[bytes]:
        return [self._content]

    def read(self, data: bytes) -> bool:
        self._path.write_bytes(data)
        try:
            index = IndexFiles(self._files.folder).open(self._build)
        except IndexUnreadable:
            assert data != self._content
            return False
        assert data == self._content and index.rows == 40
        return True


class Backups(Target):
    """Manifests of backups, and with each the check of its files."""

    name = "backups"

    def _open(self, stack: ExitStack) -> None:
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        dump = self._folder / "dump"
        dump.write_bytes(bytes(100))
        manifest = Manifest(
            datetime(2026, 1, 1, tzinfo=UTC), "0.1", "0013", "18.4", 18, "0.8.5",
            Model(1, "embedded", "2-a", 512, "f"), {"product": 3}, ("query_sample",),
            {"dump": backup_manifest.describe(dump)},
        )  # fmt: skip
        backup_manifest.write(manifest, self._folder)
        self._path = self._folder / backup_manifest.NAME
        self._content = self._path.read_bytes()

    def corpus(self) -> Sequence[bytes]:
        return [self._content]

    def read(self, data: bytes) -> bool:
        self._path.write_bytes(data)
        try:
            backup_manifest.check_files(backup_manifest.read(self._folder), self._folder)
        except BadBackup as exc:
            assert str(exc).endswith("."), exc
            return False
        return True


class WebAnswers(Target):
    """What a web server sends for the address of a picture."""

    name = "web answers"

    def corpus(self) -> Sequence[bytes]:
        picture = photo(1)
        length = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n%s"
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
        values = (len(picture), picture)
        return [length % values, chunked % values,
                b"HTTP/1.1 302 Found\r\nLocation: http://a.test/b.png\r\nContent-Length: 0\r\n\r\n",
                b"HTTP/1.0 404 Not Found\r\n\r\ngone"]  # fmt: skip

    def _open(self, stack: ExitStack) -> None:
        self._answer = b""
        self._downloader = Downloader(max_bytes=10_000, ports=None)

        def connect(network: PublicNetwork, *_args: Any, **_options: Any) -> NetworkStream:
            return Recorded(self._answer)

        stack.enter_context(mock.patch.object(PublicNetwork, "connect_tcp", connect))

    def read(self, data: bytes) -> bool:
        self._answer = data
        try:
            assert len(self._downloader.read("http://a.test/a.png")) <= 10_000
        except BadImage as exc:
            assert str(exc).endswith("."), exc
            return False
        return True


class Recorded(NetworkStream):
    """A connection on which the server has sent everything already."""

    def __init__(self, answer: bytes) -> None:
        self._answer = io.BytesIO(answer)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._answer.read(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send nothing."""

    def start_tls(self, *_args: Any, **_options: Any) -> NetworkStream:
        raise OSError("no TLS here")

    def close(self) -> None:
        """Nothing is open."""
