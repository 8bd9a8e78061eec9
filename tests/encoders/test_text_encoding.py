"""Words and pictures through a model that reads both, by the real loading code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from app.bootstrap import App
from app.config import Settings
from app.errors import BadInput, ModelMismatch
from app.types import Query
from support.shop import add, numbered, vectors
from support.small_clip import save_small_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_clip(tmp_path_factory.mktemp("models") / "small-clip")


@pytest.fixture
def clip(new_database: Callable[[str | None], str], folder: Path, tmp_path: Path) -> Iterator[App]:
    settings = Settings(home=tmp_path, database_url=new_database(None), model=str(folder))
    with App(settings) as app:
        app.initialise()
        add(app, numbered(40))
        yield app


def test_words_find_what_the_exact_scan_says(clip: App) -> None:
    """The random weights mean nothing; the order must be that of the cosines all the same."""
    words = "a red shoe"
    query = clip.encoder().encode_words([words])[0]
    cosine = vectors(clip, range(40)).astype(np.float16).astype(np.float32) @ query
    wanted = [f"P{n:04}" for n in np.argsort(-cosine)[:5]]
    for path in ("exact", "faiss"):
        result = clip.search.search(Query(words=words, k=5))
        assert result.plan.path == path
        assert [match.product.sku for match in result.matches] == wanted
        clip.indexer.rebuild()


def test_words_that_look_like_a_path_are_words(clip: App) -> None:
    assert clip.search.search(Query(words="/etc/passwd", k=5)).matches


def test_no_words_are_refused(clip: App) -> None:
    with pytest.raises(BadInput, match="no words"):
        clip.search.search(Query(words="  "))


def test_other_weights_under_the_same_name_are_refused(
    clip: App, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = save_small_clip(tmp_path_factory.mktemp("others") / "small-clip", seed=1)
    settings = clip.settings.model_copy(update={"model": str(other)})
    with App(settings) as app, pytest.raises(ModelMismatch, match=r"small-clip.*small-clip"):
        app.search.search(Query(words="a red shoe"))
