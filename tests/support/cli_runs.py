"""How a command ended, and how it is run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from app.encoders.loading import choose_encoder


@dataclass(frozen=True)
class Ran:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]

RunPrinted = Callable[..., str]
"""Runs a command and returns what it prints."""


choose_once = cache(choose_encoder)
"""Each command loads its encoder; in one process, the second command takes that of the first."""
