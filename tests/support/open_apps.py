"""Several services on one database, like those of several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from app.bootstrap import App
from app.config import Settings
from app.encoders.base import EncoderChoice

Choose = Callable[..., EncoderChoice]


@contextmanager
def open_apps(settings: Settings, choose: Choose) -> Iterator[Callable[..., App]]:
    """A function that opens services with these settings, and closes all of them at the end.

    It takes another choice of the encoder, and changes of the settings by name.
    """
    with ExitStack() as opened:

        def open_(choose: Choose = choose, **changes: Any) -> App:
            return opened.enter_context(App(settings.model_copy(update=changes), choose=choose))

        yield open_
