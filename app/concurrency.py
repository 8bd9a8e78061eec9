"""Forks: a child has none of its parent's threads, so it may wait for nothing that they hold."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any


def in_children(begin: Callable[[], Any]) -> None:
    """Call a method of a living object in every child that is forked from now on.

    The object is not kept alive by it.
    """
    method = weakref.WeakMethod(begin)

    def call() -> None:
        found = method()
        if found is not None:
            found()

    os.register_at_fork(after_in_child=call)
