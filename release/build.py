"""Builds the source distribution and the wheel, byte by byte the same wherever it runs.

    python release/build.py dist

From the files of the last commit, with its time, the same permissions and order: nothing of this
machine gets in. The wheel is built from the source distribution.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUILD = "import sys; from setuptools import build_meta; build_meta.build_{}(sys.argv[1])"


def build(target: Path) -> list[Path]:
    """The two files, in `target`."""
    target.mkdir(parents=True, exist_ok=True)
    time = int(_git("log", "-1", "--format=%ct"))
    with tempfile.TemporaryDirectory() as folder:
        source, first, unpacked = (Path(folder, name) for name in ("source", "first", "unpacked"))
        _export(source)
        sdist = target / _run("sdist", source, first, time).name
        _repack(next(first.iterdir()), sdist, time)
        unpacked.mkdir()
        # Not tarfile: its safe way to unpack came with Python 3.11.4.
        subprocess.run(["tar", "-xpzf", str(sdist), "-C", str(unpacked)], check=True)
        wheel = _run("wheel", next(unpacked.iterdir()), target, time)
    return [sdist, wheel]


def _export(source: Path) -> None:
    """The files of the last commit."""
    source.mkdir()
    archive = subprocess.run(
        ["git", "archive", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, check=True
    ).stdout
    subprocess.run(["tar", "-x", "-C", str(source)], input=archive, check=True)


def _run(kind: str, source: Path, target: Path, time: int) -> Path:
    """Build in a process of its own, with a umask and a time that are always the same."""
    target.mkdir(exist_ok=True)
    before = set(target.iterdir())
    subprocess.run(
        [sys.executable, "-c", f"import os; os.umask(0o022); {BUILD.format(kind)}", str(target)],
        cwd=source, check=True, stdout=subprocess.DEVNULL,
        env=os.environ | {"SOURCE_DATE_EPOCH": str(time), "PYTHONHASHSEED": "0", "TZ": "UTC"},
    )  # fmt: skip
    (made,) = set(target.iterdir()) - before
    return made


def _repack(sdist: Path, target: Path, time: int) -> None:
    """Write a source distribution again, in order, with one time, one owner and plain modes."""
    with (
        tarfile.open(sdist) as old,
        target.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=time) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda each: each.name):
            member.mtime, member.uid, member.gid = time, 0, 0
            member.uname = member.gname = ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    for made in build(Path(sys.argv[1]).absolute()):
        print(made)
