"""Settings, read from environment variables with the prefix LOOKALIKE_."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PLACES_PER_CORE = 4
"""Concurrent searches per core: while one computes, others wait for PostgreSQL or for a batch."""

MAX_PLACES = 24
"""Each search may use two connections, and PostgreSQL allows a hundred by default."""


class Settings(BaseSettings):
    """All settings, each with a default that works on one machine without a server.

    Every field is read from an environment variable: `LOOKALIKE_` and its name in capitals.
    """

    model_config = SettingsConfigDict(env_prefix="LOOKALIKE_", extra="ignore", frozen=True)

    home: Path = Field(
        default_factory=lambda: platformdirs.user_data_path("lookalike"),
        description="Folder of the embedded database and of the index files.",
    )
    database_url: str | None = Field(
        default=None,
        repr=False,  # it may contain a password
        description="PostgreSQL server; unset: the embedded one in `home`.",
    )
    index_dir: Path | None = Field(
        default=None, description="Folder of the index files; unset: `index` in `home`."
    )
    cache_dir: Path = Field(
        default_factory=lambda: platformdirs.user_cache_path("lookalike"),
        description="Folder of what is made of a model once on this machine.",
    )
    model: str = Field(
        default="auto",
        description="'auto', 'embedded', a hub name such as 'clip-ViT-B-32', or a local folder; "
        "with -int8 behind it, in 8-bit numbers.",
    )
    model_revision: str | None = Field(
        default=None, description="Commit of the hub model; unset: the one pinned for its name."
    )
    openvino: bool = Field(
        default=True,
        description="Pictures are encoded by OpenVINO where it agrees with torch; int8 only by it.",
    )
    recall_goal: float = Field(default=0.99, gt=0, le=1)
    max_delta_rows: int = Field(
        default=20_000, ge=0, description="A delta above this is not searched; pgvector answers."
    )
    exact_rows: int = Field(
        default=20_000, ge=0, description="Without a build, up to this many rows: exact search."
    )
    index_in_database: bool = Field(
        default=True,
        description="Keep index files in PostgreSQL too, for hosts that do not share the folder.",
    )
    sample_queries: bool = Field(
        default=True,
        description="Keep the vectors of a few hundred recent searches, to measure indexes with.",
    )
    max_image_bytes: int = Field(default=30_000_000, gt=0)
    max_image_pixels: int = Field(default=64_000_000, gt=0)
    max_k: int = Field(default=1000, gt=0, description="Most products one search may ask for.")
    searches_at_once: int | None = Field(
        default=None, gt=0, description="Searches of one process at a time; unset: by its cores."
    )
    search_wait_s: float = Field(
        default=10.0,
        ge=0,
        le=86_400,
        description="A search that waits longer for its turn is refused.",
    )
    typo_similarity: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="Two spellings of a word at least as similar may be one with a typo.",
    )
    statement_timeout_s: float = Field(default=60.0, gt=0)
    analyst_timeout_s: float = Field(
        default=60.0, gt=0, description="The worker ends an analyst's session that takes longer."
    )
    worker_share: float = Field(
        default=0.1, gt=0, description="A delta above this share of the index is built in."
    )
    worker_age_s: float = Field(
        default=3600.0, ge=0, description="A smaller delta is built in when the index is as old."
    )
    worker_every_s: float = Field(default=60.0, ge=0, description="Least rest between two builds.")
    worker_poll_s: float = Field(
        default=60.0, gt=0, description="The worker looks so often without word of a change."
    )
    worker_look_s: float = Field(
        default=1.0, gt=0, description="Least time between two looks; changes in it are one."
    )
    worker_backoff_s: float = Field(
        default=30.0, gt=0, description="Wait after a failed build; doubles with each more."
    )
    worker_backoff_max_s: float = Field(default=3600.0, gt=0)
    worker_stale_s: float = Field(
        default=7200.0, gt=0, description="/healthz fails when the last success is older."
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address of metrics and health.")
    worker_metrics_port: int = Field(default=9464, ge=0, le=65535)
    page_metrics_port: int = Field(default=9465, ge=0, le=65535)
    page_rebuild: bool = Field(default=True, description="The page offers to rebuild the index.")
    page_read_only: bool = Field(
        default=False, description="The page shows everything and changes nothing."
    )
    private_addresses: bool = Field(
        default=False, description="Web addresses may lead to private and loopback addresses."
    )

    @field_validator("home", "index_dir", "cache_dir")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        try:
            return path.expanduser().absolute() if path is not None else None
        except (OSError, RuntimeError) as exc:
            raise ValueError(f"{str(exc).rstrip('.')}; name another folder") from exc

    @property
    def index_folder(self) -> Path:
        """Folder of the index files."""
        return self.index_dir or self.home / "index"

    @property
    def tower_folder(self) -> Path:
        """Folder of the compiled models."""
        return self.cache_dir / "towers"

    @property
    def places(self) -> int:
        """Number of searches that this process runs at the same time."""
        return self.searches_at_once or min(PLACES_PER_CORE * _cores(), MAX_PLACES)


def _cores() -> int:
    """Number of processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
