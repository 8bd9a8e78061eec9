"""Background loads of models: the end of a process waits for one."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from app.bootstrap import App
from app.config import Settings
from app.encoders.base import EncoderChoice
from app.models import encoder_pool
from app.types import Query
from support.colours import choose_colours, photo
from support.shop import add, numbered


def test_closing_waits_for_a_model_that_is_being_loaded(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading, go_on = threading.Event(), threading.Event()

    def choose(model: str, **options: Any) -> EncoderChoice:
        if threading.current_thread().name == "load":
            loading.set()
            go_on.wait(300)
        return choose_colours(model, **options)

    with App(settings, choose=choose_colours) as app:
        add(app, numbered(3))
        app.lifecycle.add("other")
    monkeypatch.setattr(encoder_pool, "PRELOAD_S", 0.0)
    app = App(settings, choose=choose)
    app.search.search(Query(picture=photo(1)))
    assert loading.wait(300)
    threading.Timer(0.2, go_on.set).start()
    app.close()
    assert go_on.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "load"]
