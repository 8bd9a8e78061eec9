"""Settings of the worker: when it looks, builds, waits and counts as stuck."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class WorkerSettings(BaseSettings):
    """The part of `Settings` that begins with `worker_`, but for the port of its metrics."""

    model_config = SettingsConfigDict(env_prefix="LOOKALIKE_", extra="ignore", frozen=True)

    worker_cost: float = Field(
        default=0.5,
        gt=0,
        description=(
            "the worker rebuilds when comparing what changed lengthens a search by more than this "
            "share, as measured"
        ),
    )
    worker_share: float = Field(
        default=0.005,
        gt=0,
        description=(
            "the worker also rebuilds when more than this share of the index changed and it could "
            "not be measured what that costs"
        ),
    )
    worker_age_s: float = Field(
        default=86_400.0,
        ge=0,
        description=(
            "the worker also rebuilds when anything changed and the index is older than this, "
            "in seconds"
        ),
    )
    worker_every_s: float = Field(
        default=60.0,
        ge=0,
        description="minimum seconds between the end of a build and the next build",
    )
    worker_poll_s: float = Field(
        default=60.0,
        gt=0,
        description="seconds after which the worker checks without a notification",
    )
    worker_look_s: float = Field(
        default=1.0, gt=0, description="minimum seconds between two checks"
    )
    worker_backoff_s: float = Field(
        default=30.0,
        gt=0,
        description="seconds to wait after a failed build; doubled by each further failure",
    )
    worker_backoff_max_s: float = Field(
        default=3600.0, gt=0, description="maximum seconds to wait after failed builds"
    )
    worker_stale_s: float = Field(
        default=7200.0,
        gt=0,
        description=(
            "`/healthz` of the worker fails when its last success is older, in seconds; "
            "longer than the longest build"
        ),
    )
