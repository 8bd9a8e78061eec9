"""Runs a rebuild in a background thread and reports its progress.

Reloading or leaving the page neither stops a rebuild nor hides its progress.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace

from app.errors import LookalikeError
from app.index.builder import Indexer
from app.types import Build

_log = logging.getLogger("lookalike.rebuild")


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """Progress of the last rebuild of this process: its steps so far, the last one maybe running.

    Once it has ended, either `build` (published or rejected) or `error` (a sentence) is set.
    """

    steps: tuple[str, ...] = ()
    running: bool = False
    build: Build | None = None
    error: str | None = None


class BackgroundBuild:
    """Runs one rebuild at a time in this process. Thread-safe."""

    def __init__(self, indexer: Indexer) -> None:
        self._indexer = indexer
        self._lock = threading.Lock()
        self._progress = BuildProgress()

    @property
    def progress(self) -> BuildProgress:
        """The current progress."""
        with self._lock:
            return self._progress

    def start(self) -> None:
        """Start a rebuild, unless one is already running in this process."""
        with self._lock:
            if self._progress.running:
                return
            self._progress = BuildProgress(("Preparing",), running=True)
        threading.Thread(target=self._run, name="rebuild", daemon=True).start()

    def _run(self) -> None:
        try:
            build = self._indexer.rebuild(notify=self._announce)
        except LookalikeError as exc:
            self._end(error=str(exc))
        except Exception:
            _log.exception("a rebuild failed")
            self._end(error="Something went wrong while the index was built; it was logged.")
        else:
            self._end(build=build)

    def _announce(self, step: str) -> None:
        with self._lock:
            self._progress = replace(self._progress, steps=(*self._progress.steps, step))

    def _end(self, *, build: Build | None = None, error: str | None = None) -> None:
        with self._lock:
            self._progress = replace(self._progress, running=False, build=build, error=error)
