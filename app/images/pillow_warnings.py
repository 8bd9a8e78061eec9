"""Silences Pillow's warnings about a file in the thread that decodes it here.

Two simpler ways do not work. `warnings.catch_warnings` swaps the filters of the whole process, so
two threads that decode restore each other's filters. A filter set at import would silence Pillow
for all other code of the process, and any filter set later (`simplefilter("error")`, pytest) goes
before it: a sound picture with an odd header would then be refused.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

_PLUGINS = (
    *(Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin, GifImagePlugin),
    *(AvifImagePlugin, TiffImagePlugin, BmpImagePlugin),
)


class _State(threading.local):
    silenced = False


_state = _State()


class _Warnings(ModuleType):
    """Replaces the name `warnings` in Pillow's modules; passes on what other threads warn."""

    def warn(self, message: Any, category: Any = None, stacklevel: int = 1, **options: Any) -> None:
        if not _state.silenced:
            warnings.warn(message, category, stacklevel + 1, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(warnings, name)


@contextmanager
def no_warnings() -> Iterator[None]:
    """Drop Pillow's warnings in this thread."""
    before, _state.silenced = _state.silenced, True
    try:
        yield
    finally:
        _state.silenced = before


for _plugin in _PLUGINS:
    if hasattr(_plugin, "warnings"):
        vars(_plugin)["warnings"] = _Warnings("warnings")
