"""Start-up time: from the start of a process to its first useful output.

    python -m bench.operations.startup

All figures are of child processes, measured alternately and compared with an empty Python program;
searches also by processor time, compared with `import torch`, with and without an API that runs.
The catalogue is generated, with 20,000 products and an index, on a server that is already running.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from bench.data.catalogue import catalogue
from bench.harness.side_by_side import BenchmarkReport, measure_alternately, ratio
from bench.search.users import generate_photo

MAIN = "from app.cli import main; main()"
TIMEOUT_S = 120.0
API_PORT = "18502"
GOALS_S = {"--help": 0.3, "status": 1.0}
GOALS_OF_TORCH = {"search --sku": 0.3, "search --text": 0.3, "search PHOTO": 1.5}
"""Maximum processor time of a search as a multiple of that of `import torch`."""

BESIDE_API = ", an API runs"

VISIT_PROGRAM = """
from pathlib import Path
from streamlit.testing.v1 import AppTest

def script():
    from app.ui.views import search as search_page
    search_page.show()

page = AppTest.from_function(script, default_timeout=120).run()
print("rendered", flush=True)
files = [("photo.jpg", Path({photo!r}).read_bytes(), "image/jpeg")]
page = page.file_uploader(key="search_upload").set_value(files).run()
assert any("<div class=card>" in each.proto.body for each in page.get("html")), page.main
print("answered", flush=True)
"""
"""A visit to the page without a browser: render the page, upload a photo, wait for products."""


def run_to_completion(*arguments: str) -> Callable[[], None]:
    """Runs a Python command to its end."""

    def run() -> None:
        devnull = subprocess.DEVNULL
        subprocess.run([sys.executable, *arguments], check=True, stdout=devnull, stderr=devnull)

    return run


def time_until_output(program: Path, line: str) -> Callable[[], float]:
    """Seconds until a program prints a line. It then runs to its end, which is not measured."""

    def measure_once() -> float:
        began = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, str(program)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        ) as child:  # fmt: skip
            assert child.stdout is not None
            for output in child.stdout:
                if output.strip() == line:
                    return time.perf_counter() - began
        raise RuntimeError(f"{program} ended without printing {line!r}")

    return measure_once


def time_until_healthy(url: str, *arguments: str) -> Callable[[], float]:
    """Seconds until `lookalike ARGUMENTS` returns 200 at `url`. It is then stopped."""

    def measure_once() -> float:
        began = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-c", MAIN, *arguments],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while not _responds_ok(url):
                if child.poll() is not None or time.perf_counter() - began > TIMEOUT_S:
                    raise RuntimeError(f"`lookalike {' '.join(arguments)}` does not serve {url}")
                time.sleep(0.01)
            return time.perf_counter() - began
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait()

    return measure_once


def _responds_ok(url: str) -> bool:
    try:
        with urlopen(url, timeout=1) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False


def processor_seconds(*arguments: str) -> Callable[[], float]:
    """The processor time of a Python command and its children, in seconds."""
    command = run_to_completion(*arguments)

    def measure_once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return measure_once


@contextmanager
def running_api() -> Iterator[None]:
    """An API that has loaded its model and its index."""
    child = subprocess.Popen(
        [sys.executable, "-c", MAIN, "api", "--port", API_PORT],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        began = time.perf_counter()
        while not _responds_ok(f"http://127.0.0.1:{API_PORT}/healthz"):
            if child.poll() is not None or time.perf_counter() - began > TIMEOUT_S:
                raise RuntimeError("`lookalike api` does not answer")
            time.sleep(0.1)
        yield
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait()


def measure_searches(picture: Path, rounds: int, report: BenchmarkReport) -> None:
    """Measure the processor time of searches, with and without an API that runs."""
    searches = {
        "search --sku": ("--sku", "S7"), "search --text": ("--text", "title"),
        "search PHOTO": (str(picture),),
    }  # fmt: skip
    commands = {
        name: processor_seconds("-c", MAIN, "search", *words) for name, words in searches.items()
    }
    torch = {"import torch": processor_seconds("-c", "import torch")}
    alone = measure_alternately(torch | commands, rounds)
    with running_api():
        beside = measure_alternately(torch | commands, rounds)
    for suffix, times in (("", alone), (BESIDE_API, beside)):
        for name, measurement in times.items():
            relative = ratio(measurement, times["import torch"])
            report.row(program=name + suffix, processor=measurement, relative_to_torch=relative)
            if name in GOALS_OF_TORCH:
                bound = GOALS_OF_TORCH[name]
                report.goal(f"{name}{suffix} / import torch", relative, bound, at_least=False)


def measure(picture: Path, rounds: int, report: BenchmarkReport) -> None:
    """Measure all commands alternately; `picture` is a photo to search with."""
    visit = picture.with_name("visit.py")
    visit.write_text(VISIT_PROGRAM.format(photo=str(picture)))
    times = measure_alternately(
        {
            "python -c pass": run_to_completion("-c", "pass"),
            "import app.cli": run_to_completion("-c", "import app.cli"),
            "--help": run_to_completion("-c", MAIN, "--help"),
            "status": run_to_completion("-c", MAIN, "status"),
            "search --sku": run_to_completion("-c", MAIN, "search", "--sku", "S7"),
            "search PHOTO": run_to_completion("-c", MAIN, "search", str(picture)),
            "worker, until ready": time_until_healthy("http://127.0.0.1:19464/healthz", "worker"),
            "page, until served": time_until_healthy(
                "http://127.0.0.1:18501/_stcore/health", "page", "--port", "18501"
            ),
            "first visit, page rendered": time_until_output(visit, "rendered"),
            "first visit, first result": time_until_output(visit, "answered"),
        },
        rounds,
    )
    for name, measurement in times.items():
        relative = ratio(measurement, times["python -c pass"])
        report.row(program=name, time=measurement, relative_to_empty_python=relative)
    for name, bound in GOALS_S.items():
        report.goal(f"lookalike {name}, seconds", times[name], bound, at_least=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--searches", action="store_true", help="measure searches only")
    options = parser.parse_args()
    report = BenchmarkReport("startup", "Start-up")
    with catalogue(options.rows, pgvector=True) as app, tempfile.TemporaryDirectory() as folder:
        app.indexer.rebuild()
        picture = Path(folder) / "photo.jpg"
        picture.write_bytes(generate_photo(1))
        os.environ |= {
            "LOOKALIKE_HOME": str(app.settings.home),
            "LOOKALIKE_WORKER_METRICS_PORT": "19464",
            "LOOKALIKE_PAGE_METRICS_PORT": "19465",
            "LOOKALIKE_SAMPLE_QUERIES": "false",
        }
        os.environ.pop("LOOKALIKE_DATABASE_URL", None)
        if not options.searches:
            measure(picture, options.rounds, report)
        measure_searches(picture, options.rounds, report)
    report.note("The server was already running; starting the embedded server is not included.")
    report.write()


if __name__ == "__main__":
    main()
