"""Quiet: Pillow's warnings of a file are not heard while this thread decodes it."""

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


class _Quiet(threading.local):
    now = False


_quiet = _Quiet()


class _Warnings(ModuleType):
    """The module `warnings` as Pillow sees it: silent in a thread that is decoding here.

    `warnings.catch_warnings` swaps the filters of the whole process, so two threads undo each
    other's; a filter set once would silence Pillow for everybody and is lost under pytest. A
    name in Pillow's modules is neither: whoever else uses Pillow hears every warning as before.
    """

    def warn(self, message: Any, category: Any = None, stacklevel: int = 1, **more: Any) -> None:
        if not _quiet.now:
            warnings.warn(message, category, stacklevel + 1, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(warnings, name)


@contextmanager
def no_warnings() -> Iterator[None]:
    """Of Pillow, in this thread."""
    before, _quiet.now = _quiet.now, True
    try:
        yield
    finally:
        _quiet.now = before


for _plugin in _PLUGINS:
    if hasattr(_plugin, "warnings"):
        vars(_plugin)["warnings"] = _Warnings("warnings")
