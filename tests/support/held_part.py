"""An actor of a part that tests can hold, and ask where it runs."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from app.cluster import parts
from app.cluster.parts import PartActor
from app.types import Build

BRIEF_S = 3.0
"""Seconds for which a BriefPart goes on without being asked for."""


class HeldPart(PartActor):
    """Does not answer searches while there is a file `hold-NUMBER` in the index folder of the
    cluster."""

    def search(self, *arguments: Any) -> Any:
        hold = Path(os.environ["LOOKALIKE_INDEX_DIR"]) / f"hold-{self._build.part}"
        while hold.exists():
            time.sleep(0.01)
        return super().search(*arguments)

    def node(self) -> str:
        """The id of the node that it runs on."""
        import ray  # in a worker of a cluster

        return str(ray.get_runtime_context().get_node_id())


class BriefPart(PartActor):
    """Ends soon when no process asks for it any more."""

    def __init__(self, settings: str, build: Build, its_version: str) -> None:
        parts.LEASE_S = BRIEF_S
        super().__init__(settings, build, its_version)

    def process(self) -> int:
        """The process that it runs in."""
        return os.getpid()
