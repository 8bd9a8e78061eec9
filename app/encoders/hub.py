"""Finds or downloads the files of a Hugging Face model: cache first, then the network."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants, get_session
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

from app.encoders.model_layouts import is_complete
from app.encoders.presets import PRESETS, preset_of
from app.errors import ModelUnavailable

PINNED = {preset.repository: preset.commit for preset in PRESETS}
"""Default commits, so that a model does not change when its author pushes."""

PROBE_S = 4.0
"""Seconds within which the hub must answer a small request to count as reachable."""

_OWNER = "sentence-transformers"

# No pickles: they run code when loaded, and the safetensors files hold the same weights.
_PATTERNS = ["*.json", "*.txt", "*.safetensors", "*.model", "README.md"]


@dataclass(frozen=True, slots=True)
class HubFiles:
    """Local folder with a model's files, and their commit."""

    folder: Path
    commit: str


def fetch(
    name: str, *, revision: str | None = None, cache: Path | None = None, offline: bool = False
) -> HubFiles:
    """The files of the hub model `name`; its default owner is sentence-transformers.

    Raises ModelUnavailable when they are not in the cache and cannot be downloaded; if the hub does
    not answer, after `PROBE_S` seconds. A download from a hub that answers has no time limit.
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
    preset = preset_of(repo)
    folder = huggingface_hub.snapshot_download(
        repo,
        revision=revision,
        cache_dir=cache,
        local_files_only=offline,
        allow_patterns=_PATTERNS,
        ignore_patterns=list(preset.skips) if preset else None,
        library_name="lookalike",
    )
    path = Path(folder)
    # An interrupted download leaves a snapshot without weights.
    if not is_complete(path):
        raise FileNotFoundError(f"{repo} at {path.name} lacks its configuration or safetensors")
    return HubFiles(path, path.name)


def _probe(name: str, cache: Path | None) -> None:
    """Raise ModelUnavailable unless the hub answers within PROBE_S seconds.

    Runs in a thread, because resolving a host name has no timeout.
    """
    errors: list[str | None] = []
    thread = threading.Thread(target=lambda: errors.append(_hub_error()), daemon=True)
    thread.start()
    thread.join(PROBE_S)
    error = errors[0] if errors else f"no answer in {PROBE_S:g} s"
    if error:
        raise _unavailable(name, cache, f"{constants.ENDPOINT} cannot be reached ({error})")


def _hub_error() -> str | None:
    """Why the hub cannot be used; None if it answered with any status but a server error."""
    try:
        response = get_session().head(constants.ENDPOINT, timeout=PROBE_S)
    except (OSError, httpx.HTTPError, ValueError) as exc:
        return _brief(exc)
    return None if response.status_code < 500 else f"status {response.status_code}"


def _unavailable(name: str, cache: Path | None, why: str) -> ModelUnavailable:
    folder = cache or constants.HF_HUB_CACHE
    return ModelUnavailable(
        f"The model {name} is not in {folder}, and {why}. Fetch it on a machine with a network and "
        "copy the folder here, set LOOKALIKE_MODEL to that folder, or to 'embedded'."
    )


def _brief(exc: BaseException) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0][:200]
