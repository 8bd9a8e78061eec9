"""Fixtures of the tests of encoders: small models of each kind, made once a process."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app.encoders.base import EMBEDDED, Encoder
from app.encoders.compiled_cache import CompiledCache
from app.encoders.compiled_model import CompileOptions
from app.encoders.loading import load_encoder
from app.encoders.projected_encoder import ProjectedEncoder
from support.small_clip import save_published_clip, save_small_clip
from support.small_encoders import COMMIT, KINDS, LAYOUTS


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_clip(tmp_path_factory.mktemp("models") / "small-clip")


@pytest.fixture(scope="session")
def clip(clip_folder: Path) -> Encoder:
    return load_encoder(str(clip_folder))


@pytest.fixture(scope="session")
def embedded() -> Encoder:
    return load_encoder(EMBEDDED)


@pytest.fixture(scope="session")
def fitted(clip: Encoder) -> Encoder:
    """The small CLIP, followed by a map that is not far from the identity."""
    change = np.random.default_rng(0).normal(size=(clip.dim, clip.dim)) / clip.dim
    return ProjectedEncoder("fitted", clip, (np.eye(clip.dim) + change).astype(np.float32))


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Encoder]:
    """Loads a small model of one of LAYOUTS."""

    @functools.cache
    def load(layout: str) -> Encoder:
        folder = tmp_path_factory.mktemp("layouts") / layout.replace(" ", "-").lower()
        return load_encoder(str(LAYOUTS[layout](folder)))

    return load


@pytest.fixture(params=KINDS)
def encoder(request: pytest.FixtureRequest, loaded: Callable[[str], Encoder]) -> Encoder:
    if request.param in LAYOUTS:
        return loaded(request.param)
    value: Encoder = request.getfixturevalue(request.param)
    return value


@pytest.fixture(scope="session")
def clip_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A download cache that holds the small CLIP as the pinned commit, in the published layout."""
    cache = tmp_path_factory.mktemp("cache")
    model = cache / "models--sentence-transformers--clip-ViT-B-32"
    save_published_clip(model / "snapshots" / COMMIT)
    return cache


@pytest.fixture
def cache(tmp_path: Path) -> CompiledCache:
    return CompiledCache(tmp_path / "compiled")


@pytest.fixture
def options(cache: CompiledCache) -> CompileOptions:
    return CompileOptions(cache)
