"""Searches with a model that encodes texts and pictures, loaded by the real code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from app.bootstrap import App
from app.config import Settings
from app.errors import BadInput, ModelMismatch
from app.types import Query
from app.vectors import round_to_float16
from support.shop import add, numbered, vectors
from support.small_clip import save_small_clip

pytestmark = pytest.mark.xdist_group("clip")


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


def test_a_text_finds_the_products_with_the_highest_cosine(clip: App) -> None:
    """The weights are random, but the order must still be that of the cosines."""
    words = "a red shoe"
    query = clip.encoder().encode_words([words])[0]
    cosine = round_to_float16(vectors(clip, range(40))) @ query
    expected = [f"P{n:04}" for n in np.argsort(-cosine)[:5]]
    for path in ("exact", "faiss"):
        result = clip.search.search(Query(words=words, k=5))
        assert result.plan.path == path
        assert [match.product.sku for match in result.matches] == expected
        clip.indexer.rebuild()


def test_a_text_that_looks_like_a_path_is_a_text(clip: App) -> None:
    assert clip.search.search(Query(words="/etc/passwd", k=5)).matches


def test_an_empty_text_is_refused(clip: App) -> None:
    with pytest.raises(BadInput, match="no words"):
        clip.search.search(Query(words="  "))


def test_other_weights_under_the_same_name_are_refused(
    clip: App, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = save_small_clip(tmp_path_factory.mktemp("others") / "small-clip", seed=1)
    settings = clip.settings.model_copy(update={"model": str(other)})
    with App(settings) as app, pytest.raises(ModelMismatch, match=r"small-clip.*small-clip"):
        app.search.search(Query(words="a red shoe"))
