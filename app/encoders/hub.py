"""From the name of a hub model to a folder with its files: cache first, then the network."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants, get_session
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

from app.errors import ModelUnavailable

PINNED = {"sentence-transformers/clip-ViT-B-32": "327ab6726d33c0e22f920c83f2ff9e4bd38ca37f"}
"""The commit taken when none is asked for: a model must not change because its author pushes."""

PROBE_S = 4.0
"""Seconds in which a hub must answer one small request to count as reachable."""

_OWNER = "sentence-transformers"

# No pickles: they run code when loaded, and the safetensors beside them hold the same weights.
_WANTED = ["*.json", "*.txt", "*.safetensors", "*.model", "README.md"]


@dataclass(frozen=True, slots=True)
class HubFiles:
    """A model's files on this machine, and the commit they are of."""

    folder: Path
    commit: str


def fetch(
    name: str, *, revision: str | None = None, cache: Path | None = None, offline: bool = False
) -> HubFiles:
    """The files of hub model `name` (without an owner: sentence-transformers).

    Raises ModelUnavailable when they are neither in the cache nor to be had: within `PROBE_S`
    seconds if the hub does not answer. A download from a hub that answers has no time limit.
    """
    repo = name if "/" in name else f"{_OWNER}/{name}"
    revision = revision or PINNED.get(repo)
    try:
        return _snapshot(repo, revision, cache, offline=True)
    except OSError as exc:
        if offline or constants.HF_HUB_OFFLINE:
            raise _unavailable(name, cache, "downloads are switched off") from exc
    except HFValidationError as exc:
        raise ModelUnavailable(f"{name!r} is neither a folder nor a hub name: {exc}") from exc
    _probe(name, cache)
    try:
        return _snapshot(repo, revision, cache, offline=False)
    except (OSError, httpx.HTTPError, RuntimeError, ValueError) as exc:
        raise _unavailable(name, cache, f"the download failed ({_brief(exc)})") from exc


def _snapshot(repo: str, revision: str | None, cache: Path | None, *, offline: bool) -> HubFiles:
    folder = huggingface_hub.snapshot_download(
        repo,
        revision=revision,
        cache_dir=cache,
        local_files_only=offline,
        allow_patterns=_WANTED,
        library_name="lookalike",
    )
    path = Path(folder)
    # A download that was broken off leaves a snapshot without its weights.
    if not (path / "modules.json").exists() or not any(path.rglob("*.safetensors")):
        raise FileNotFoundError(f"{repo} at {path.name} lacks modules.json or safetensors")
    return HubFiles(path, path.name)


def _probe(name: str, cache: Path | None) -> None:
    """Raises ModelUnavailable unless the hub answers anything at all within PROBE_S seconds.

    In a thread, because resolving a host name knows no timeout.
    """
    answers: list[str | None] = []
    asking = threading.Thread(target=lambda: answers.append(_ask_hub()), daemon=True)
    asking.start()
    asking.join(PROBE_S)
    trouble = answers[0] if answers else f"no answer in {PROBE_S:g} s"
    if trouble:
        raise _unavailable(name, cache, f"{constants.ENDPOINT} cannot be reached ({trouble})")


def _ask_hub() -> str | None:
    """What went wrong, or None when the hub answered; any status but a server error will do."""
    try:
        response = get_session().head(constants.ENDPOINT, timeout=PROBE_S)
    except (OSError, httpx.HTTPError, ValueError) as exc:
        return _brief(exc)
    return None if response.status_code < 500 else f"status {response.status_code}"


def _unavailable(name: str, cache: Path | None, why: str) -> ModelUnavailable:
    place = cache or constants.HF_HUB_CACHE
    return ModelUnavailable(
        f"The model {name} is not in {place}, and {why}. Fetch it on a machine with a network and "
        "copy the folder here, set LOOKALIKE_MODEL to that folder, or to 'embedded'."
    )


def _brief(exc: BaseException) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0][:200]
