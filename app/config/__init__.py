"""Settings, read from environment variables with the prefix LOOKALIKE_."""

from __future__ import annotations

import os
import re
from pathlib import Path

import platformdirs
from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from app.config.worker import WorkerSettings

PLACES_PER_CORE = 4
"""Concurrent searches per core: while one computes, others wait for PostgreSQL or for a batch."""

MAX_PLACES = 24
"""Each search may use two connections, and PostgreSQL allows a hundred by default."""


class Settings(WorkerSettings):
    """All settings, each with a default that works on one machine without a server.

    Every field is read from an environment variable: `LOOKALIKE_` and its name in capitals.
    """

    model_config = SettingsConfigDict(env_prefix="LOOKALIKE_", extra="ignore", frozen=True)

    home: Path = Field(
        default_factory=lambda: platformdirs.user_data_path("lookalike"),
        description="folder of the embedded database, the index files and downloaded feeds",
    )
    database_url: str | None = Field(
        default=None,
        repr=False,  # it may contain a password
        description=(
            "URL of the PostgreSQL server: `postgresql://user:password@host:5432/database`"
        ),
    )
    database_password_file: Path | None = Field(
        default=None,
        description=(
            "file whose first line is the password of LOOKALIKE_DATABASE_URL, such as a secret of "
            "a container"
        ),
    )
    index_dir: Path | None = Field(
        default=None, description="folder of the index files; a separate one for each database"
    )
    cache_dir: Path = Field(
        default_factory=lambda: platformdirs.user_cache_path("lookalike"),
        description="folder of compiled models",
    )
    model: str = Field(
        default="auto",
        description=(
            "`auto`, `embedded`, a preset such as `siglip2`, a hub name such as `clip-ViT-B-32`, "
            "or a folder; with the suffix `-int8`, its 8-bit version"
        ),
    )
    device: str = Field(
        default="auto",
        description=(
            "where models other than the embedded one run: `cpu`, `cuda`, `cuda:1` or `mps`; "
            "`auto` takes a graphics card if torch can use one"
        ),
    )
    model_revision: str | None = Field(default=None, description="commit of a hub model")
    language: str | None = Field(
        default=None,
        description=(
            "text search configuration of PostgreSQL by which `lookalike init` has words stemmed, "
            "such as `german` or `simple`; afterwards a command changes it"
        ),
    )
    openvino: bool = Field(
        default=True,
        description=(
            "whether OpenVINO encodes pictures where its vectors equal those of torch; with "
            "`false` torch encodes, and 8-bit models, which only OpenVINO runs, are refused"
        ),
    )
    recall_goal: float = Field(
        default=0.99,
        gt=0,
        le=1,
        description="recall@10, above 0 to 1, that an index must reach to be published",
    )
    max_delta_rows: int = Field(
        default=20_000,
        ge=0,
        description="if more embeddings changed since the index was built, pgvector answers",
    )
    exact_rows: int = Field(
        default=20_000,
        ge=0,
        description="without an index, up to this many embeddings are searched exactly",
    )
    index_in_database: bool = Field(
        default=True,
        description=(
            "store index files in PostgreSQL too, for machines that do not share the folder"
        ),
    )
    index_part_rows: int = Field(
        default=200_000_000,
        ge=0,
        description=(
            "an index of more embeddings than this is built in parts of at most so many, each in a "
            "file of its own; 0: always in one file"
        ),
    )
    sample_queries: bool = Field(
        default=True,
        description="store the vectors of a few hundred recent searches, to measure indexes with",
    )
    history_days: float = Field(
        default=30.0,
        ge=0,
        le=36_500,
        description="days for which runs can be undone; 0: nothing is kept for it",
    )
    history_mb: int = Field(
        default=1000,
        gt=0,
        description="megabytes that are kept to undo runs, the oldest deleted first",
    )
    max_image_bytes: int = Field(
        default=30_000_000, gt=0, description="largest picture file that is read, in bytes"
    )
    max_image_pixels: int = Field(
        default=64_000_000, gt=0, description="largest picture that is decoded, in pixels"
    )
    max_k: int = Field(default=1000, gt=0, description="largest k of a search")
    searches_at_once: int | None = Field(
        default=None, gt=0, description="searches of one process that run concurrently"
    )
    search_wait_s: float = Field(
        default=10.0,
        ge=0,
        le=86_400,
        description="seconds, up to a day, that a further search waits before it is refused",
    )
    typo_similarity: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="similarity, 0 to 1, from which two spellings of a word may count as a typo",
    )
    shared_picture_products: int = Field(
        default=20,
        ge=1,
        description=(
            "a picture that more products than this show, such as a placeholder, is one match of "
            "a page, with the other products listed under it"
        ),
    )
    statement_timeout_s: float = Field(
        default=60.0, gt=0, description="seconds after which PostgreSQL cancels a statement"
    )
    analyst_timeout_s: float = Field(
        default=60.0,
        gt=0,
        description=(
            "seconds a statement or a transaction of an analyst may take before the worker "
            "ends its session"
        ),
    )
    metrics_host: str = Field(
        default="127.0.0.1", description="address on which metrics and health are served"
    )
    worker_metrics_port: int = Field(
        default=9464,
        ge=0,
        le=65535,
        description="port of the worker's metrics; 0 for any free port",
    )
    page_metrics_port: int = Field(
        default=9465, ge=0, le=65535, description="port of the page's metrics; 0 for any free port"
    )
    facets: str = Field(
        default="auto",
        description=(
            "what the results can be filtered by, separated by commas: columns and attributes; "
            "`auto` for brand, category, colour and the attributes with few values"
        ),
    )
    page_rebuild: bool = Field(
        default=True,
        description=(
            "whether the page has a button that rebuilds the index; `false` for public pages"
        ),
    )
    page_read_only: bool = Field(
        default=False,
        description="whether the page is read-only: no verdicts, no rebuild, only searches",
    )
    page_language: str = Field(
        default="auto",
        description=(
            "language of the page, such as `de`; `auto` takes that of the visitor's browser"
        ),
    )
    private_addresses: bool = Field(
        default=False,
        description=(
            "whether pictures may be fetched by URL from private and loopback addresses; keep "
            "it off for public pages"
        ),
    )
    uploads_mb: int = Field(
        default=256,
        gt=0,
        description=(
            "megabytes of uploaded pictures that a page's process keeps for all sessions together"
        ),
    )
    link_ports: str = Field(
        default="80,443",
        description="ports from which pictures are fetched by URL, separated by commas",
    )

    photo_minutes: float = Field(
        default=60.0,
        gt=0,
        le=43_200,
        description="minutes for which the HTTP API keeps a photo to search with",
    )
    share_hours: float = Field(
        default=168.0,
        gt=0,
        le=8_760,
        description="hours for which a shared search by photo of the page can be opened",
    )
    max_photos: int = Field(
        default=20_000,
        gt=0,
        description="photos that the HTTP API, and shared searches of the page, keep at one time; "
        "shared ones take at most half",
    )
    api_cache_s: int = Field(
        default=60,
        ge=0,
        le=31_536_000,
        description="seconds for which a browser may keep the list of products similar to one",
    )
    api_requests: int = Field(
        default=200,
        gt=0,
        le=5000,
        description="requests of the HTTP API that are answered or wait at the same time",
    )
    api_body_s: float = Field(
        default=30.0,
        gt=0,
        description="seconds in which the body of a request to the HTTP API must arrive",
    )

    event_days: float = Field(
        default=30.0,
        ge=0,
        le=3650,
        description="days for which searches of the HTTP API and events on them are kept; 0: "
        "neither is recorded",
    )
    events_per_s: float = Field(
        default=100.0,
        gt=0,
        description="events in a second that each key may post, in each process of the HTTP API",
    )

    cluster_cpus: int = Field(
        default=1,
        gt=0,
        le=1024,
        description=(
            "processors that a task of `--on` takes; each worker process loads the model once"
        ),
    )
    search_on: str | None = Field(
        default=None,
        description=(
            "Ray cluster in whose processes indexes in parts are searched: `ray://host:10001`, "
            "`host:port`, or `local`; without it, a process that searches opens all parts"
        ),
    )
    part_cpus: float = Field(
        default=1.0,
        gt=0,
        le=1024,
        description="processors that the cluster reserves for each part of an index",
    )
    part_wait_s: float = Field(
        default=0.5,
        gt=0,
        le=60,
        description=(
            "seconds that a search waits for the parts of an index; the pictures of one that has "
            "not answered then are compared in PostgreSQL"
        ),
    )
    downloads_at_once: int = Field(
        default=4, gt=0, le=64, description="pictures that an ingest downloads of one host at once"
    )
    downloads_per_second: float = Field(
        default=20.0,
        gt=0,
        description="pictures that an ingest begins to download of one host in a second",
    )

    @field_validator("home", "index_dir", "cache_dir", "database_password_file")
    @classmethod
    def _absolute(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        try:
            return path.expanduser().absolute() if path is not None else None
        except (OSError, RuntimeError) as exc:
            kind = "file" if str(info.field_name).endswith("_file") else "folder"
            raise ValueError(f"{str(exc).rstrip('.')}; name another {kind}") from exc

    @field_validator("device")
    @classmethod
    def _device(cls, name: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", name):
            raise ValueError("give auto, cpu, cuda, cuda:1 or mps")
        return name

    @field_validator("link_ports")
    @classmethod
    def _ports(cls, text: str) -> str:
        ports = [port.strip() for port in text.split(",")]
        if not all(port.isdecimal() and 0 < int(port) < 65536 for port in ports):
            raise ValueError("give ports from 1 to 65535, separated by commas, such as 80,443")
        return text

    @property
    def link_port_numbers(self) -> frozenset[int]:
        """The ports from which pictures are fetched by URL."""
        return frozenset(map(int, self.link_ports.split(",")))

    @property
    def index_folder(self) -> Path:
        """Folder of the index files."""
        return self.index_dir or self.home / "index"

    @property
    def download_folder(self) -> Path:
        """Folder of downloaded feeds, and of what is known of downloaded pictures."""
        return self.home / "downloads"

    @property
    def compiled_cache_folder(self) -> Path:
        """Folder of the compiled models. Its name is that of earlier versions, whose files stay
        usable."""
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
