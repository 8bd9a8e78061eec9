"""Start-up: from the start of a process to its first useful word.

    python -m bench.operations.startup

Every figure is of child processes, each way once and then each again, beside an empty Python. The
catalogue is drawn, of 20,000 products, with an index, in a server that runs already.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from bench.data.catalogue import catalogue
from bench.harness.side_by_side import Report, in_turn, ratio
from bench.search.users import photo

MAIN = "from app.cli import main; main()"
PATIENCE_S = 120.0
GOALS_S = {"--help": 0.3, "status": 1.0}

VISIT = """
from pathlib import Path
from streamlit.testing.v1 import AppTest

def script():
    from app.ui.views import search as search_page
    search_page.show()

page = AppTest.from_function(script, default_timeout=120).run()
print("drawn", flush=True)
files = [("photo.jpg", Path({photo!r}).read_bytes(), "image/jpeg")]
page = page.file_uploader(key="search_upload").set_value(files).run()
assert any("<div class=card>" in each.proto.body for each in page.get("html")), page.main
print("answered", flush=True)
"""
"""A visitor of the page, without a browser: the page is drawn, a photo is given, products come."""


def ran(*words: str) -> Callable[[], None]:
    """A command from its start to its end."""

    def way() -> None:
        quiet = subprocess.DEVNULL
        subprocess.run([sys.executable, *words], check=True, stdout=quiet, stderr=quiet)

    return way


def until_said(program: Path, word: str) -> Callable[[], float]:
    """Seconds until a program says a word; it then runs to its end, which does not count."""

    def way() -> float:
        began = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, str(program)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        ) as child:  # fmt: skip
            assert child.stdout is not None
            for line in child.stdout:
                if line.strip() == word:
                    return time.perf_counter() - began
        raise RuntimeError(f"the program never said {word!r}")

    return way


def until_served(path: str, *words: str) -> Callable[[], float]:
    """Seconds until a service answers with 200; it is then told to stop."""

    def way() -> float:
        began = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-c", MAIN, *words],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while not _answers(path):
                if child.poll() is not None or time.perf_counter() - began > PATIENCE_S:
                    raise RuntimeError(f"`lookalike {' '.join(words)}` does not serve {path}")
                time.sleep(0.01)
            return time.perf_counter() - began
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait()

    return way


def _answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=1) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def measure(picture: Path, rounds: int, report: Report) -> None:
    visit = picture.with_name("visit.py")
    visit.write_text(VISIT.format(photo=str(picture)))
    found = in_turn(
        {
            "python -c pass": ran("-c", "pass"),
            "import app.cli": ran("-c", "import app.cli"),
            "--help": ran("-c", MAIN, "--help"),
            "status": ran("-c", MAIN, "status"),
            "search --sku": ran("-c", MAIN, "search", "--sku", "S7"),
            "search PHOTO": ran("-c", MAIN, "search", str(picture)),
            "worker to ready": until_served("http://127.0.0.1:19464/healthz", "worker"),
            "page to served": until_served(
                "http://127.0.0.1:18501/_stcore/health", "page", "--port", "18501"
            ),
            "first visit to drawn": until_said(visit, "drawn"),
            "first visit to first answer": until_said(visit, "answered"),
        },
        rounds,
    )
    for name, sample in found.items():
        times = ratio(sample, found["python -c pass"])
        report.row(start=name, took=sample, to_an_empty_python=times)
    for name, bound in GOALS_S.items():
        report.goal(f"lookalike {name}, seconds", found[name], bound, at_least=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    words = parser.parse_args()
    report = Report("startup", "Start-up")
    with catalogue(words.rows, hnsw=True) as app, tempfile.TemporaryDirectory() as folder:
        app.indexer.rebuild()
        picture = Path(folder) / "photo.jpg"
        picture.write_bytes(photo(1))
        os.environ |= {
            "LOOKALIKE_HOME": str(app.settings.home),
            "LOOKALIKE_WORKER_METRICS_PORT": "19464",
            "LOOKALIKE_PAGE_METRICS_PORT": "19465",
            "LOOKALIKE_SAMPLE_QUERIES": "false",
        }
        os.environ.pop("LOOKALIKE_DATABASE_URL", None)
        measure(picture, words.rounds, report)
    report.note("The server was running; the embedded one takes its own time at the first command.")
    report.write()


if __name__ == "__main__":
    main()
