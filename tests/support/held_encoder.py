"""What workers of a cluster run in tests, which can hold it, to kill one at that moment."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.encoders.base import EncoderChoice
from app.encoders.preprocessing import PreparedPicture
from app.types import Vectors
from support.colours import ColourEncoder


class HeldEncoder(ColourEncoder):
    """Encodes while `folder/hold` does not exist; `folder/waiting-NODE-PID` tells who waits."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(name)
        self._folder = folder

    def encode_prepared(self, prepared: Sequence[PreparedPicture]) -> Vectors:
        wait_while_held(self._folder)
        return super().encode_prepared(prepared)


def wait_while_held(folder: Path) -> None:
    hold = folder / "hold"
    if hold.exists():
        import ray  # in a worker of a cluster

        node = ray.get_runtime_context().get_node_id()
        (folder / f"waiting-{node}-{os.getpid()}").touch()
        while hold.exists():
            time.sleep(0.01)


def held_encode_pages(job: Any, *arguments: Any) -> Any:
    """`tasks.encode_pages`, held in the same way."""
    from app.cluster import tasks

    wait_while_held(job.choose.args[0])
    return tasks.encode_pages(job, *arguments)


DEADLY = "P0007"
"""The sku of a row that ends the process which reads it."""


def deadly_write_rows(job: Any, *arguments: Any) -> Any:
    """`tasks.write_rows`, which such a row ends."""
    from app.cluster import tasks

    *_, rows = arguments
    if any(row.product.sku == DEADLY for row in rows):
        os.kill(os.getpid(), signal.SIGKILL)
    return tasks.write_rows(job, *arguments)


def choose_held(folder: Path, model: str, **_: Any) -> EncoderChoice:
    """Replaces `choose_encoder`; each load leaves `folder/loaded-PID-NUMBER`."""
    name = "colours" if model == "auto" else model
    earlier = len(list(folder.glob(f"loaded-{os.getpid()}-*")))
    (folder / f"loaded-{os.getpid()}-{name}-{earlier}").touch()
    return EncoderChoice(HeldEncoder(folder, name), f"The encoder {name} was taken.")
